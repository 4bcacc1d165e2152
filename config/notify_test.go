package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func notifyText(channels, rules string) string {
	return "archive: {dir: ./data}\nnotify:\n  channels:\n" + channels + "  rules:\n" + rules +
		"sources:\n  - name: pay\n    provider: stripe\n    credentials: {secrets: [whsec_0123456789abcdef]}\n"
}

const (
	chatChannel = "    - {name: chat, type: slack, url: 'https://chat.example/T0/the-secret'}\n"
	badRule     = "    - {name: bad, when: refusals}\n"
)

func TestNotify(t *testing.T) {
	_, err := parsed(t, notifyText(chatChannel+
		"    - {name: mail, type: email, per_minute: 5, smtp: {address: 'mail.example:587', username: u, password: p, from: 'Gate <gate@example.com>', to: [ops@example.com]}}\n"+
		"    - {name: bot, type: telegram, token: 'env:PENSTOCK_TEST_BOT', chat: '-100'}\n"+
		"    - {name: hook, type: webhook, url: 'http://10.0.0.7/x', secret: whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=, allow_private: [10.0.0.0/8]}\n",
		badRule+"    - {name: old, when: uncaptured, after: 6d, channels: [chat, mail], sources: [pay], again: 0s, group: 0s}\n"+
			"    - {name: failed, when: event, types: [payment.failed], match: {currency: EUR}, template: '{{.Title | upper}}'}\n"))
	if err == nil || !strings.Contains(err.Error(), "PENSTOCK_TEST_BOT is not set") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v", err)
	}
	t.Setenv("PENSTOCK_TEST_BOT", "12345:the-bot-token")
	c, err := parsed(t, notifyText(chatChannel+"    - {name: bot, type: telegram, token: 'env:PENSTOCK_TEST_BOT', chat: '-100'}\n", badRule+
		"    - {name: old, when: uncaptured, channels: [chat], again: 0s, group: 0s}\n    - {name: few, when: declines, share: 12.5}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := c.Notify.Rules
	if r[0].Count != 10 || r[0].Within != 5*time.Minute || r[0].Group != 30*time.Second || r[0].Again != 12*time.Hour ||
		r[1].After != 5*24*time.Hour || r[1].Again != 0 || r[1].Group != 0 || r[2].Share != 12.5 || r[2].Count != 20 {
		t.Errorf("%+v", r)
	}
	if c.Notify.Channels[1].Token.Reveal() != "12345:the-bot-token" || c.Notify.Channels[0].PerMinute != 20 {
		t.Error("a channel is not as written")
	}
	if s := fmt.Sprintf("%+v %#v", c.Notify, c.Notify); strings.Contains(s, "the-") {
		t.Error("a secret can be printed")
	}
	next, err := parsed(t, notifyText(chatChannel, badRule))
	if err != nil || len(Diff(c, next)) != 0 {
		t.Errorf("%v, %v: a reload is enough", err, Diff(c, next))
	}
}

// TestNotifyMistakes: each by line and column, with a cure, and never an address.
func TestNotifyMistakes(t *testing.T) {
	f := func(channels, rules, want string) {
		t.Helper()
		_, err := parsed(t, notifyText(channels, rules))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "the-secret") {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	channel := func(s, want string) { t.Helper(); f("    - {name: x, "+s+"}\n", badRule, want) }
	rule := func(s, want string) { t.Helper(); f(chatChannel, "    - {name: x, "+s+"}\n", want) }
	channel("type: slak, url: 'https://x/the-secret'", `p.yaml:4:23: notify.channels[0].type: "slak" is not known here; did you mean "slack"?`)
	channel("type: slack", "p.yaml:4:7: notify.channels[0].url: is missing; a channel of type slack wants it")
	channel("type: slack, url: 'http://x/the-secret'", "p.yaml:4:35: notify.channels[0].url: is not https; plain http is for networks of allow_private alone")
	channel("type: slack, url: 'x/the-secret'", "p.yaml:4:35: notify.channels[0].url: is no http(s) URL")
	channel("type: slack, url: 'https://u:the-secret@x/'", "notify.channels[0].url: holds a user name")
	channel("type: slack, url: 'https://x/the-secret', token: the-secret", "notify.channels[0].token: is not for type slack; remove it")
	channel("type: webhook, url: 'https://x/the-secret', secret: the-secret", "notify.channels[0].secret: is not whsec_ and 24 to 64 bytes in base64")
	channel("type: telegram, token: the-secret", "notify.channels[0].chat: is missing")
	channel("type: email, smtp: {address: mail, from: a@b, to: [c]}", `notify.channels[0].smtp.address: "mail" is no host with a port`)
	channel("type: email, smtp: {address: 'm:25', from: a@b.c, to: [c]}", `notify.channels[0].smtp.to[0]: "c" is no mail address`)
	channel("type: email, smtp: {address: 'm:25', from: a@b.c, to: [c@d.e], tls: none, username: u, password: the-secret}", "smtp.password: would be sent unencrypted")
	channel("type: email, smtp: {address: 'm:25', from: a@b.c, to: [c@d.e], username: u}", "smtp: username and password go together")
	channel("type: slack, url: 'https://x/the-secret', allow_private: [10.0.0.1/8]", "notify.channels[0].allow_private[0]")
	f(chatChannel+chatChannel, badRule, `notify.channels[1].name: "chat" is the name of notify.channels[0] too`)
	f(chatChannel, badRule+badRule, `notify.rules[1].name: "bad" is the name of notify.rules[0] too`)
	rule("when: refusal", `p.yaml:6:23: notify.rules[0].when: "refusal" is not known here; did you mean "refusals"?`)
	rule("when: refusals, after: 3d", "p.yaml:6:40: notify.rules[0].after: is not for when: refusals; here count: reasons, count, within")
	rule("when: lag, sources: [pay]", "notify.rules[0].sources: is not for when: lag")
	rule("when: event", "p.yaml:6:7: notify.rules[0].types: is missing")
	rule("when: refusals, channels: [chta]", `notify.rules[0].channels[0]: there is no channel "chta"; did you mean "chat"?`)
	rule("when: refusals, sources: [stripe]", `notify.rules[0].sources[0]: there is no source "stripe"`)
	rule("when: refusals, template: '{{.Title'", "p.yaml:6:43: notify.rules[0].template: is no template")
	rule("when: refusals, template: '{{exec}}'", `function "exec" not defined`)
	rule("when: refusals, within: 10ms", "notify.rules[0].within: 10ms is out of range; at least 1s")
	rule("when: refusals, often: 1", "notify.rules[0].often: unknown key")
	_, err := parsed(t, strings.Replace(notifyText("", badRule), "  channels:\n", "", 1))
	if err == nil || !strings.Contains(err.Error(), "notify.channels: is missing; rules want somewhere to send to") {
		t.Errorf("%v", err)
	}
}

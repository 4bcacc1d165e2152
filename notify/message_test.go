package notify

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestMaskPANs(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := maskPANs(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	f("order 4242424242424242 failed", "order 424242******4242 failed")
	f("4242 4242 4242 4242", "4242 42** **** 4242")
	f("4242-4242-4242-4242.", "4242-42**-****-4242.")
	f("378282246310005", "378282*****0005")
	f("4242424242424243", "4242424242424243") // no card has it
	f("123456789012", "123456789012")
	f("94242424242424242", "94242424242424242") // an id of more digits
	f("2026-11-18", "2026-11-18")
	f("", "")
}

// TestText: what comes from outside cannot hide, reorder, or fill a message.
func TestText(t *testing.T) {
	m := sample()
	m.Lines = []string{"a\x00b\u202ec\x1b[31m", "order 4242424242424242", string([]byte{0xff, 'z'})}
	if got := m.text(); got != "firing: bad\nabc[31m\norder 424242******4242\nz" {
		t.Errorf("%q", got)
	}
	m.Lines = []string{strings.Repeat("€ ", 5000)}
	if got := m.text(); utf8.RuneCountInString(got) > maxText || !strings.HasSuffix(got, "\n...") || !utf8.ValidString(got) {
		t.Errorf("%d characters, end %q", utf8.RuneCountInString(got), got[len(got)-20:])
	}
	m.Lines, m.More, m.State, m.Link, m.Node = []string{"shop"}, 3, StateRecovered, "https://admin.example/", "gw-1"
	if got := m.text(); got != "recovered: bad (gw-1)\nshop\nand 3 more\nwas so since 2026-11-18 12:00:00 UTC\nhttps://admin.example/" {
		t.Errorf("%q", got)
	}
	m.Template = `{{.Title | upper}} {{date .At}} {{join "; " .Lines}} {{cut 3 .Rule}} {{.Count}}`
	if got := m.text(); got != "RECOVERED: BAD 2026-11-18 12:00:00 UTC shop bad 14" {
		t.Errorf("%q", got)
	}
	m.Template = `{{range .Lines}}{{.Nothing}}{{end}}` // passes no check, and must not cost the message
	if got := m.text(); !strings.HasPrefix(got, "recovered: bad") {
		t.Errorf("%q", got)
	}
	m.Template = `{{define "x"}}{{.Rule}}{{template "x" .}}{{end}}{{template "x" .}}`
	if got := m.text(); got == "" || utf8.RuneCountInString(got) > maxText {
		t.Errorf("%d characters", utf8.RuneCountInString(got))
	}
}

func TestCheck(t *testing.T) {
	f := func(change func(*Config), want string) {
		t.Helper()
		c := Config{Channels: []Channel{{Name: "ops", Kind: Slack, URL: "https://chat.example/T0/the-secret"}}, Rules: []Rule{{Name: "r", When: WhenEvent, Match: map[string]string{"currency": "EUR"}}}}
		change(&c)
		err := Check(c)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
		if err != nil && strings.Contains(err.Error(), "the-secret") {
			t.Errorf("a secret is in %v", err)
		}
	}
	ch := func(c Channel) func(*Config) { c.Name = "ops"; return func(to *Config) { to.Channels[0] = c } }
	f(func(*Config) {}, "")
	f(func(c *Config) { c.Channels = append(c.Channels, c.Channels[0]) }, "not its own")
	f(func(c *Config) { c.Rules = append(c.Rules, c.Rules[0]) }, "not its own")
	f(func(c *Config) { c.Rules[0].Channels = []string{"none"} }, `no channel "none"`)
	f(func(c *Config) { c.Rules[0].Match["pan"] = "4" }, `no field "pan"; known: currency, `)
	f(func(c *Config) { c.Rules[0].Template = "{{.Secret}}" }, "template: ")
	f(func(c *Config) { c.Rules[0].Template = "{{exec}}" }, "not defined")
	f(ch(Channel{Kind: "pager"}), "no kind")
	f(ch(Channel{Kind: Slack, URL: "http://chat.example/the-secret"}), "not https")
	f(ch(Channel{Kind: Slack, URL: "https://u:the-secret@chat.example/"}), "user name")
	f(ch(Channel{Kind: Slack, URL: "ftp://chat.example/the-secret"}), "no http(s) URL")
	f(ch(Channel{Kind: Slack, URL: "http://10.0.0.1/", Private: loop}), "")
	f(ch(Channel{Kind: Webhook, URL: "https://x.example/", Secret: "the-secret"}), "whsec_")
	f(ch(Channel{Kind: Telegram, Token: "the-secret/../x", Chat: "1"}), "token")
	f(ch(Channel{Kind: Telegram, Token: "1:a", Chat: "1"}), "")
	f(ch(Channel{Kind: Email, SMTP: &SMTP{From: "a@b", To: []string{"c@d\r\nRCPT TO:<x@y>"}}}), "mail addresses")
	f(ch(Channel{Kind: Email}), "wants smtp")
}

package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"text/template"
	"time"
)

// Notify is who is told of what.
type Notify struct {
	Channels []NotifyChannel `yaml:"channels" doc:"where messages go"`
	Rules    []NotifyRule    `yaml:"rules" doc:"what is worth one"`
}

// NotifyChannel is one place that messages go to.
type NotifyChannel struct {
	Name         string   `yaml:"name" required:"true" check:"name" doc:"name of its own"`
	Type         string   `yaml:"type" required:"true" enum:"slack|discord|telegram|email|webhook" doc:"what it is"`
	URL          Secret   `yaml:"url" doc:"slack, discord: the incoming webhook's address; webhook: yours; telegram: another server than Telegram's"`
	Token        Secret   `yaml:"token" doc:"telegram: the bot's token"`
	Chat         string   `yaml:"chat" doc:"telegram: the chat's number in quotes, or @name of a channel"`
	Secret       Secret   `yaml:"secret" doc:"webhook: whsec_ and 24 to 64 bytes in base64; what it sends is signed by it as Standard Webhooks says"`
	SMTP         *SMTP    `yaml:"smtp" doc:"email: the server and the envelope"`
	AllowPrivate []string `yaml:"allow_private" check:"cidr" doc:"networks that are not public and may be reached all the same"`
	PerMinute    int      `yaml:"per_minute" default:"20" min:"1" max:"600" doc:"messages at most; what is above waits and is put together"`
}

// SMTP is a mail server and the envelope.
type SMTP struct {
	Address  string   `yaml:"address" required:"true" check:"hostport" doc:"the mail server"`
	TLS      string   `yaml:"tls" default:"starttls" enum:"starttls|tls|none" doc:"how it is encrypted; none sends no password"`
	Username string   `yaml:"username" doc:"user"`
	Password Secret   `yaml:"password" short:"true" doc:"its password"`
	From     string   `yaml:"from" required:"true" check:"mail" doc:"sender"`
	To       []string `yaml:"to" required:"true" check:"mail" doc:"receivers"`
}

// NotifyRule says what is worth a message.
type NotifyRule struct {
	Name     string            `yaml:"name" required:"true" check:"name" doc:"name of its own; it stands in the message"`
	When     string            `yaml:"when" required:"true" enum:"event|refusals|silence|lag|disk|uncaptured|declines|repeats" doc:"what it looks at"`
	Channels []string          `yaml:"channels" doc:"where its messages go; unset = all"`
	Sources  []string          `yaml:"sources" doc:"which sources it is about; unset = all"`
	Types    []string          `yaml:"types" doc:"event: types, canonical or the provider's; * at the end stands for the rest"`
	Match    map[string]string `yaml:"match" doc:"event: fields that the event must have, such as currency: EUR; * at the end stands for the rest"`
	Where    string            `yaml:"where" check:"when" doc:"event: a condition over the event, such as amount.minor > 100000 and type startsWith \"payment.\"; docs/notifications.md lists the names"`
	Reasons  []string          `yaml:"reasons" doc:"refusals: reasons of refusal; declines: reasons of failure; unset = all"`
	Count    int               `yaml:"count" default:"0" min:"0" max:"1000000" doc:"refusals, repeats: from so many on (10, 20); declines: among at least so many payments (20)"`
	Within   time.Duration     `yaml:"within" min:"1s" max:"7d" doc:"refusals, declines, repeats: the time that is looked at (5m, 1h, 1h)"`
	Above    time.Duration     `yaml:"above" min:"1s" max:"30d" doc:"lag: age of the oldest delivery that is not published (5m)"`
	After    time.Duration     `yaml:"after" min:"1m" max:"30d" doc:"uncaptured: how long an authorization may wait (5d)"`
	Floor    time.Duration     `yaml:"floor" min:"1m" max:"30d" doc:"silence: never told sooner (30m)"`
	Factor   float64           `yaml:"factor" min:"1" max:"100" doc:"silence: so many times the longest pause that is usual at this hour (2)"`
	Share    float64           `yaml:"share" min:"0.1" max:"100" doc:"declines: percent of the payments (30)"`
	Free     Size              `yaml:"free" doc:"disk: told below it; unset = only when the archive takes nothing"`
	Group    time.Duration     `yaml:"group" default:"30s" min:"0s" max:"1d" doc:"what comes within it is one message with a count"`
	Again    time.Duration     `yaml:"again" default:"12h" min:"0s" max:"30d" doc:"told again while it lasts; 0s = once"`
	Template string            `yaml:"template" doc:"text of the message, as text/template; see docs/notifications.md"`
}

// NotifyTemplateFuncs are the functions that a template may call; a test holds them to
// those that there are.
var NotifyTemplateFuncs = []string{"cut", "date", "join", "upper"}

// ruleKeys says which keys count for which rules, and their defaults.
var ruleKeys = map[string]struct {
	keys     []string
	defaults func(*NotifyRule)
}{
	"event": {[]string{"types", "match", "where"}, func(*NotifyRule) {}},
	"refusals": {[]string{"reasons", "count", "within"}, func(r *NotifyRule) {
		orElse(&r.Count, 10)
		orElse(&r.Within, 5*time.Minute)
	}},
	"silence": {[]string{"floor", "factor"}, func(r *NotifyRule) {
		orElse(&r.Floor, 30*time.Minute)
		orElse(&r.Factor, 2)
	}},
	"lag":        {[]string{"above"}, func(r *NotifyRule) { orElse(&r.Above, 5*time.Minute) }},
	"disk":       {[]string{"free"}, func(*NotifyRule) {}},
	"uncaptured": {[]string{"after"}, func(r *NotifyRule) { orElse(&r.After, 5*24*time.Hour) }},
	"declines": {[]string{"reasons", "count", "within", "share"}, func(r *NotifyRule) {
		orElse(&r.Count, 20)
		orElse(&r.Within, time.Hour)
		orElse(&r.Share, 30)
	}},
	"repeats": {[]string{"count", "within"}, func(r *NotifyRule) {
		orElse(&r.Count, 20)
		orElse(&r.Within, time.Hour)
	}},
}

func orElse[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func (d *decoder) notify(c *Config) {
	names := map[string]int{}
	for i := range c.Notify.Channels {
		ch, path := &c.Notify.Channels[i], fmt.Sprintf("notify.channels[%d]", i)
		d.own(names, ch.Name, i, path, "notify.channels")
		d.channel(ch, path)
	}
	rules := map[string]int{}
	for i := range c.Notify.Rules {
		r, path := &c.Notify.Rules[i], fmt.Sprintf("notify.rules[%d]", i)
		d.own(rules, r.Name, i, path, "notify.rules")
		d.rule(c, r, path, names)
	}
	if _, tried := d.at["notify.channels"]; len(c.Notify.Rules) > 0 && !tried {
		d.fail(d.where("notify.rules"), "notify.channels", "is missing", "rules want somewhere to send to")
	}
}

// own says that a name is taken.
func (d *decoder) own(names map[string]int, name string, i int, path, list string) {
	if j, dup := names[name]; dup && name != "" {
		d.fail(d.where(path+".name"), path+".name", fmt.Sprintf("%q is the name of %s[%d] too", name, list, j), "give each its own")
		return
	}
	names[name] = i
}

func (d *decoder) channel(ch *NotifyChannel, path string) {
	has := map[string]bool{"url": ch.URL != "", "token": ch.Token != "", "chat": ch.Chat != "", "secret": ch.Secret != "", "smtp": ch.SMTP != nil}
	wants := map[string][]string{"slack": {"url"}, "discord": {"url"}, "webhook": {"url", "secret"}, "telegram": {"token", "chat"}, "email": {"smtp"}}[ch.Type]
	for _, key := range []string{"url", "token", "chat", "secret", "smtp"} {
		_, tried := d.at[path+"."+key]
		wanted := slices.Contains(wants, key)
		switch {
		case wants == nil: // what it is was not understood
		case wanted && !has[key] && !tried:
			d.fail(d.where(path), path+"."+key, "is missing", "a channel of type "+ch.Type+" wants it")
		case !wanted && has[key] && (key != "url" || ch.Type != "telegram"):
			d.fail(d.where(path+"."+key), path+"."+key, "is not for type "+ch.Type, "remove it")
		}
	}
	if ch.URL != "" {
		d.target(ch, path)
	}
	if ch.Secret != "" && ch.Type == "webhook" {
		if _, err := ch.Secret.standardKey(); err != nil {
			d.fail(d.where(path+".secret"), path+".secret", err.Error(), "echo whsec_$(openssl rand -base64 32) makes one")
		}
	}
	if s := ch.SMTP; s != nil {
		if s.TLS == "none" && s.Password != "" {
			d.fail(d.where(path+".smtp.password"), path+".smtp.password", "would be sent unencrypted", "say tls: starttls, or remove it")
		}
		if (s.Username == "") != (s.Password == "") {
			d.fail(d.where(path+".smtp"), path+".smtp", "username and password go together", "give both or none")
		}
	}
}

// target looks at an address without ever showing it: most are secrets.
func (d *decoder) target(ch *NotifyChannel, path string) {
	u, err := url.Parse(ch.URL.Reveal())
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		d.fail(d.where(path+".url"), path+".url", "is no http(s) URL", "write https://...")
	case u.User != nil:
		d.fail(d.where(path+".url"), path+".url", "holds a user name", "remove it")
	case u.Scheme == "http" && len(ch.AllowPrivate) == 0:
		d.fail(d.where(path+".url"), path+".url", "is not https", "plain http is for networks of allow_private alone")
	}
}

func (d *decoder) rule(c *Config, r *NotifyRule, path string, channels map[string]int) {
	kind, known := ruleKeys[r.When]
	if !known {
		return
	}
	for _, key := range []string{"types", "match", "where", "reasons", "count", "within", "above", "after", "floor", "factor", "share", "free"} {
		if p, set := d.at[path+"."+key]; set && !slices.Contains(kind.keys, key) {
			d.fail(p, path+"."+key, "is not for when: "+r.When, "here count: "+strings.Join(kind.keys, ", "))
		}
	}
	kind.defaults(r)
	if _, sources := d.at[path+".sources"]; sources && (r.When == "lag" || r.When == "disk") {
		d.fail(d.where(path+".sources"), path+".sources", "is not for when: "+r.When, "it is about the whole gateway")
	}
	if r.When == "event" && len(r.Types) == 0 && len(r.Match) == 0 && r.Where == "" {
		d.fail(d.where(path), path+".types", "is missing", "name the types, such as [payment.failed, dispute.*]")
	}
	for i, name := range r.Channels {
		if p := fmt.Sprintf("%s.channels[%d]", path, i); !named(channels, name) {
			d.fail(d.where(p), p, fmt.Sprintf("there is no channel %q", name), suggest(name, keys(channels)))
		}
	}
	for i, name := range r.Sources {
		if p := fmt.Sprintf("%s.sources[%d]", path, i); !slices.ContainsFunc(c.Sources, func(s Source) bool { return s.Name == name }) {
			d.fail(d.where(p), p, fmt.Sprintf("there is no source %q", name), "")
		}
	}
	if r.Template != "" {
		funcs := template.FuncMap{}
		for _, name := range NotifyTemplateFuncs {
			funcs[name] = fmt.Sprint
		}
		if _, err := template.New("template").Funcs(funcs).Parse(r.Template); err != nil {
			d.fail(d.where(path+".template"), path+".template", "is no template: "+err.Error(), "see docs/notifications.md")
		}
	}
}

func named(m map[string]int, name string) bool {
	_, ok := m[name]
	return ok
}

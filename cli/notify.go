package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"penstock/config"
	"penstock/fetch"
	"penstock/notify"
)

// NotifyConfig turns the configuration's words into those of package notify.
func NotifyConfig(c *config.Config) (notify.Config, error) {
	var out notify.Config
	for i := range c.Notify.Channels {
		ch := &c.Notify.Channels[i]
		private, err := notify.Prefixes(ch.AllowPrivate)
		if err != nil {
			return out, fmt.Errorf("notify.channels[%d].allow_private: %w", i, err)
		}
		n := notify.Channel{Name: ch.Name, Kind: ch.Type, URL: ch.URL.Reveal(), Token: ch.Token.Reveal(), Chat: ch.Chat, Secret: ch.Secret.Reveal(),
			Private: private, PerMinute: ch.PerMinute}
		if s := ch.SMTP; s != nil {
			n.SMTP = &notify.SMTP{Address: s.Address, Username: s.Username, Password: s.Password.Reveal(), From: s.From, To: s.To, TLS: s.TLS}
		}
		out.Channels = append(out.Channels, n)
	}
	for i := range c.Notify.Rules {
		r := &c.Notify.Rules[i]
		out.Rules = append(out.Rules, notify.Rule{Name: r.Name, When: r.When, Sources: r.Sources, Channels: r.Channels, Types: r.Types, Match: r.Match, Where: r.Where,
			Reasons: r.Reasons, Count: r.Count, Within: r.Within, Above: r.Above, After: r.After, Floor: r.Floor, Factor: r.Factor, Share: r.Share,
			Free: int64(r.Free), Group: r.Group, Again: r.Again, Template: r.Template})
	}
	if err := notify.Check(out); err != nil {
		return out, fmt.Errorf("%s: notify: %w", c.Path, err)
	}
	return out, nil
}

// NotifyDial is how notifications reach their servers.
func NotifyDial(private []netip.Prefix) func(ctx context.Context, network, address string) (net.Conn, error) {
	return fetch.Dialer(private...).DialContext
}

func notifyCommand() *command {
	return &command{name: "notify", short: "the messages that rules send", sub: []*command{notifyTestCommand()}}
}

func notifyTestCommand() *command {
	return &command{name: "test", args: "[flags]", short: "send a test message to every channel", long: `
It is sent at once and without the gateway. With --rule it goes to that rule's channels and
in its template. Exit code 1: a channel did not take it, or there is none.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			file := configFlag(fs)
			rule := fs.String("rule", "", "`NAME` of a rule; its channels and its template")
			asJSON := fs.Bool("json", false, "print JSON")
			return func(ctx context.Context, args []string) int {
				if len(args) > 0 {
					return a.usageError("notify test", "unexpected argument %q", args[0])
				}
				return a.testNotify(ctx, *file, *rule, *asJSON)
			}
		}}
}

func (a *app) testNotify(ctx context.Context, file, rule string, asJSON bool) int {
	c, ok := a.load(file)
	if !ok {
		return exitFound
	}
	conf, err := NotifyConfig(c)
	if err != nil {
		return a.fail(exitFound, "%v", err)
	}
	if len(conf.Channels) == 0 {
		return a.fail(exitFound, "%s has no notify.channels", file)
	}
	results, err := notify.Test(ctx, conf, rule, notify.Options{Dial: NotifyDial, Link: strings.TrimSuffix(c.Admin.PublicURL, "/")})
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	type row struct {
		Channel string `json:"channel"`
		Sent    bool   `json:"sent"`
		Error   string `json:"error,omitempty"`
	}
	code, rows := exitOK, []row{}
	for _, r := range results {
		one := row{Channel: r.Channel, Sent: r.Err == nil}
		if r.Err != nil {
			one.Error, code = printable(r.Err.Error()), exitFound
		}
		rows = append(rows, one)
	}
	if asJSON {
		if err := json.NewEncoder(a.Stdout).Encode(rows); err != nil {
			return a.fail(exitFound, "%v", err)
		}
		return code
	}
	for _, r := range rows {
		if r.Sent {
			fmt.Fprintf(a.Stdout, "%s: sent\n", r.Channel)
		} else {
			fmt.Fprintf(a.Stdout, "%s: not sent: %s\n", r.Channel, r.Error)
		}
	}
	return code
}

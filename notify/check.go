package notify

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// Check says what is wrong with a configuration. Whoever reads it from a file has said
// most of it by line and column; here is what makes sending safe.
func Check(c Config) error {
	var errs []error
	names := map[string]bool{}
	for i := range c.Channels {
		ch := &c.Channels[i]
		if ch.Name == "" || names[ch.Name] {
			errs = append(errs, fmt.Errorf("channel %q: the name is missing or not its own", ch.Name))
		}
		names[ch.Name] = true
		if err := checkChannel(ch); err != nil {
			errs = append(errs, fmt.Errorf("channel %s: %w", ch.Name, err))
		}
	}
	rules := map[string]bool{}
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.Name == "" || rules[r.Name] {
			errs = append(errs, fmt.Errorf("rule %q: the name is missing or not its own", r.Name))
		}
		rules[r.Name] = true
		for _, ch := range r.Channels {
			if !names[ch] {
				errs = append(errs, fmt.Errorf("rule %s: there is no channel %q", r.Name, ch))
			}
		}
		for name := range r.Match {
			if fields[name] == nil {
				errs = append(errs, fmt.Errorf("rule %s: match: an event has no field %q; known: %s", r.Name, name, strings.Join(sortedKeys(fields), ", ")))
			}
		}
		if r.Where != "" {
			if err := CheckWhere(r.Where); err != nil {
				errs = append(errs, fmt.Errorf("rule %s: where: %w", r.Name, err))
			}
		}
		if err := checkTemplate(r.Template); err != nil {
			errs = append(errs, fmt.Errorf("rule %s: template: %w", r.Name, err))
		}
	}
	return errors.Join(errs...)
}

func checkChannel(ch *Channel) error {
	switch ch.Kind {
	case Slack, Discord, Webhook:
		if ch.Kind == Webhook {
			if _, err := signingKey(ch.Secret); err != nil {
				return err
			}
		}
		return CheckURL(ch.URL, len(ch.Private) > 0)
	case Telegram:
		if ch.Token == "" || ch.Chat == "" || strings.ContainsAny(ch.Token, "/?# \r\n") {
			return errors.New("a Telegram bot wants token and chat")
		}
		if ch.URL != "" {
			return CheckURL(ch.URL, len(ch.Private) > 0)
		}
		return nil
	case Email:
		if ch.SMTP == nil || len(ch.SMTP.To) == 0 {
			return errors.New("mail wants smtp with address, from and to")
		}
		for _, a := range append([]string{ch.SMTP.From}, ch.SMTP.To...) {
			if strings.ContainsAny(a, "\r\n") || !strings.Contains(a, "@") {
				return errors.New("smtp: from and to are mail addresses")
			}
		}
		return nil
	}
	return fmt.Errorf("there is no kind of channel %q", ch.Kind)
}

// CheckURL says whether messages may go to an address; plain http only inside a network
// that was allowed by name. The error does not show it: most are secrets.
func CheckURL(s string, private bool) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("the address is no http(s) URL")
	case u.User != nil:
		return errors.New("the address holds a user name")
	case u.Scheme == "http" && !private:
		return errors.New("the address is not https; plain http is for allow_private alone")
	}
	return nil
}

// Prefixes reads networks; an address is a network of one.
func Prefixes(list []string) (out []netip.Prefix, err error) {
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, fmt.Errorf("%q is no network", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}

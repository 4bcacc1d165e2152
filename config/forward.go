package config

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// validateAck holds an ack policy to what can keep it.
func (d *decoder) validateAck(c *Config, s *Source, path string) {
	after := path + ".after"
	switch s.Ack.After {
	case AfterPublished:
		if c.Forward == nil || c.Forward.Kafka == nil {
			d.fail(d.where(after), after, "published wants Kafka, and none is configured", "add forward.kafka, or say archived")
		} else if !s.Forward.Kafka {
			d.fail(d.where(after), after, "published wants Kafka, and this source does not go there", "remove forward.kafka: false, or say upstream")
		}
	case AfterUpstream:
		if s.Forward.HTTP == nil && (c.Forward == nil || c.Forward.HTTP == nil) {
			d.fail(d.where(after), after, "upstream wants an HTTP target, and none is configured", "add forward.http here or for all, or say archived")
		}
	default:
		for _, key := range []string{".deadline", ".max_waiting"} {
			if _, set := d.at[path+key]; set && s.Ack.After == AfterArchived {
				d.warn(d.where(path+key), path+key, "has no effect: the answer waits for nothing", "say after: published")
			}
		}
	}
}

// validateForward checks where deliveries go, and makes the whole of what sources alone say.
func (d *decoder) validateForward(c *Config) {
	own := false
	for i := range c.Sources {
		s, path := &c.Sources[i], fmt.Sprintf("sources[%d].forward", i)
		d.validateHTTP(s.Forward.HTTP, path+".http")
		own = own || s.Forward.HTTP != nil
		if !s.Forward.Kafka && s.Forward.HTTP == nil && (c.Forward == nil || c.Forward.HTTP == nil) {
			d.fail(d.where(path+".kafka"), path+".kafka", "leaves the source without any sink", "give it forward.http, or remove this line")
		}
	}
	switch {
	case c.Forward == nil && own:
		c.Forward = &Forward{Start: "oldest"}
	case c.Forward == nil:
		return
	case c.Forward.Kafka == nil && c.Forward.HTTP == nil && !own:
		if _, tried := d.at["forward.kafka"]; !tried {
			d.fail(d.where("forward"), "forward.kafka", "is missing", "the brokers; or http, or a target in a source")
		}
	}
	d.validateHTTP(c.Forward.HTTP, "forward.http")
}

func (d *decoder) validateHTTP(h *HTTP, path string) {
	if h == nil {
		return
	}
	d.clientTLS(path+".tls", h.TLS)
	u, err := url.Parse(h.URL)
	if err != nil {
		return // that was said
	}
	for i, s := range h.Secrets {
		if rest, ok := strings.CutPrefix(s.Reveal(), "whsec_"); ok {
			if key, err := base64.StdEncoding.DecodeString(rest); err != nil || len(key) == 0 {
				p := fmt.Sprintf("%s.secrets[%d]", path, i)
				d.fail(d.where(p), p, "begins with whsec_ and is not base64 behind it", "copy it whole, or drop whsec_")
			}
		}
	}
	if u.Scheme == "http" && len(h.AllowAddresses) == 0 {
		d.warn(d.where(path+".url"), path+".url", "sends what providers sent you over the internet unencrypted", "write https, or name the private networks in allow_addresses")
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && !publicly(a) && !inNetworks(h.AllowAddresses, a) {
		d.fail(d.where(path+".url"), path+".url", fmt.Sprintf("%s is no address of the public internet", a), fmt.Sprintf("if it is meant, add allow_addresses: [%s]", a))
	}
}

// publicly says whether an address may be public. It is a first look: what a name leads to,
// and the finer blocks, are looked at when it is dialled.
func publicly(a netip.Addr) bool {
	return !a.IsLoopback() && !a.IsPrivate() && !a.IsLinkLocalUnicast() && !a.IsUnspecified()
}

func inNetworks(networks []string, a netip.Addr) bool {
	for _, n := range networks {
		if p, err := netip.ParsePrefix(n); err == nil && p.Contains(a) {
			return true
		}
		if b, err := netip.ParseAddr(n); err == nil && b == a {
			return true
		}
	}
	return false
}

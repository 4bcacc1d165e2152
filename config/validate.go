package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// validate checks what one key alone cannot show, and fills in what sources inherit.
func (d *decoder) validate(c *Config) {
	d.validateAdmin(c)
	d.validateStores(c)
	names, paths, tokens := map[string]int{}, map[string]int{}, map[string]int{}
	if _, ok := d.at["sources"]; ok && len(c.Sources) > 1 && !strings.Contains(c.Ingest.Path, "{source}") {
		d.fail(d.where("ingest.path"), "ingest.path", "has no {source}, and there are several sources", "write /in/{source}")
	}
	for i := range c.Sources {
		d.validateSource(c, i, names, paths)
	}
	d.groups(c)
	d.notify(c)
	d.validateForward(c)
	for i, t := range c.Admin.Tokens {
		path := fmt.Sprintf("admin.tokens[%d]", i)
		if j, dup := tokens[t.Name]; dup && t.Name != "" {
			d.fail(d.where(path+".name"), path+".name", fmt.Sprintf("%q is the name of admin.tokens[%d] too", t.Name, j), "give each its own")
		}
		tokens[t.Name] = i
		for k, s := range t.Sources {
			if _, ok := names[s]; !ok {
				p := fmt.Sprintf("%s.sources[%d]", path, k)
				d.fail(d.where(p), p, fmt.Sprintf("there is no source %q", s), suggest(s, keys(names)))
			}
		}
	}
}

func keys(m map[string]int) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (d *decoder) validateAdmin(c *Config) {
	if _, tried := d.at["admin.tokens"]; !loopback(c.Admin.Listen) && len(c.Admin.Tokens) == 0 && !tried && c.Admin.OIDC == nil {
		d.fail(d.where("admin.listen"), "admin.listen", fmt.Sprintf("%s can be reached from outside and there is no token", c.Admin.Listen),
			"add admin.tokens or admin.oidc, or listen on 127.0.0.1")
	}
	if c.Admin.Listen == c.Ingest.Listen && !strings.HasSuffix(c.Admin.Listen, ":0") {
		d.fail(d.where("admin.listen"), "admin.listen", "is the address of ingest too", "give it another port")
	}
	if c.Forward != nil && c.Admin.PublicURL == "" && !loopback(c.Admin.Listen) {
		d.warn(d.where("admin.listen"), "admin.public_url", "is missing: consumers fetch there what is too large for Kafka (payload_ref)",
			"give the URL by which they reach this listener")
	}
	d.validateOIDC(&c.Admin)
	for i, t := range c.Admin.Tokens {
		path := fmt.Sprintf("admin.tokens[%d]", i)
		if t.Role == "consumer" && len(t.Sources) == 0 {
			d.fail(d.where(path), path+".sources", "is missing", "a consumer reads the bodies of its sources: name them")
		}
		if t.Role != "consumer" && len(t.Sources) > 0 {
			d.fail(d.where(path+".sources"), path+".sources", "is for the role consumer alone", "")
		}
		for j, o := range c.Admin.Tokens[:i] {
			if t.Token != "" && t.Token == o.Token {
				d.fail(d.where(path+".token"), path+".token", fmt.Sprintf("is the token of admin.tokens[%d] too", j), "each wants one of its own")
			}
		}
	}
}

// oidcCallback is the path that the identity provider sends people back to.
const oidcCallback = "/login/oidc/callback"

func (d *decoder) validateOIDC(a *Admin) {
	o := a.OIDC
	if o == nil {
		return
	}
	const path = "admin.oidc"
	if u, err := url.Parse(o.Issuer); err == nil && u.Scheme == "http" && !loopback(net.JoinHostPort(u.Hostname(), "0")) {
		d.fail(d.where(path+".issuer"), path+".issuer", "is not https", "who stands between could log in as anybody")
	}
	switch _, set := d.at[path+".redirect_url"]; {
	case !set && a.PublicURL == "":
		d.fail(d.where(path), path+".redirect_url", "is missing", "write https://HOST"+oidcCallback+", or set admin.public_url")
	case !set:
		o.RedirectURL = strings.TrimSuffix(a.PublicURL, "/") + oidcCallback
	case o.RedirectURL != "" && !strings.HasSuffix(o.RedirectURL, oidcCallback):
		d.fail(d.where(path+".redirect_url"), path+".redirect_url", fmt.Sprintf("%q does not end in %s", o.RedirectURL, oidcCallback), "people come back there")
	}
	if _, set := d.at[path+".roles"]; set && len(o.Roles.Viewer)+len(o.Roles.Operator) == 0 {
		d.fail(d.where(path+".roles"), path+".roles", "names nobody", "give viewer or operator the values of the claim, such as [payments-ops]")
	}
}

func (d *decoder) validateStores(c *Config) {
	if a := c.Archive.Retention.Age; a > 0 && c.Dedupe.Window > a {
		if _, set := d.at["dedupe.window"]; !set {
			d.warn(d.where("archive.retention.age"), "dedupe.window",
				fmt.Sprintf("is %s, as long as deliveries are kept", FormatDuration(a)), "the default is 8d")
			c.Dedupe.Window = a
		}
	}
	if a := c.Archive.Retention.Age; a > 0 && c.Dedupe.Window > a {
		d.fail(d.where("dedupe.window"), "dedupe.window",
			fmt.Sprintf("%s is longer than archive.retention.age (%s)", FormatDuration(c.Dedupe.Window), FormatDuration(a)),
			"what is no longer kept cannot be known again: keep longer, or shorten the window")
	}
	d.encryption(c.Archive.Encryption)
	d.segmentSize(&c.Archive)
	if r := c.Dedupe.Redis; r != nil {
		if r.Cluster && r.Sentinel != nil {
			d.fail(d.where("dedupe.redis.cluster"), "dedupe.redis.cluster", "and sentinel exclude each other", "remove one")
		}
		if r.Cluster && r.DB != 0 {
			d.fail(d.where("dedupe.redis.db"), "dedupe.redis.db", "a Redis Cluster has database 0 alone", "remove it")
		}
		if len(r.Addresses) > 1 && !r.Cluster && r.Sentinel == nil {
			d.fail(d.where("dedupe.redis.addresses"), "dedupe.redis.addresses", "several addresses", "say cluster: true, or sentinel: {master: NAME}")
		}
		d.clientTLS("dedupe.redis.tls", r.TLS)
	}
	if c.Forward == nil || c.Forward.Kafka == nil {
		return
	}
	k := c.Forward.Kafka
	d.clientTLS("forward.kafka.tls", k.TLS)
	if strings.Contains(k.DeadLetterTopic, "{") {
		d.fail(d.where("forward.kafka.dead_letter_topic"), "forward.kafka.dead_letter_topic", "has a placeholder", "it is one topic for all")
	}
	if k.SASL != nil && k.SASL.Mechanism == "plain" && (k.TLS == nil || !k.TLS.Enabled) {
		d.warn(d.where("forward.kafka.sasl"), "forward.kafka.sasl.mechanism", "plain sends the password unencrypted", "add tls: {enabled: true}")
	}
}

func (d *decoder) encryption(e *Encryption) {
	if e == nil {
		return
	}
	check := func(s Secret, path string) {
		if _, err := s.Key(); err != nil && s != "" { // that it is missing was said
			d.fail(d.where(path), path, err.Error(), "openssl rand -hex 32 makes one")
		}
	}
	check(e.Key, "archive.encryption.key")
	for i, k := range e.Previous {
		check(k, fmt.Sprintf("archive.encryption.previous[%d]", i))
	}
}

// segmentSize fits the files of the log to a small archive: whole segments are removed,
// so that few large ones would keep it either empty or above its size.
func (d *decoder) segmentSize(a *Archive) {
	const share = 8
	if a.Retention.Size == 0 || a.SegmentSize <= a.Retention.Size/share {
		return
	}
	if _, set := d.at["archive.segment_size"]; !set {
		a.SegmentSize = max(1<<20, a.Retention.Size/share)
		return
	}
	d.warn(d.where("archive.segment_size"), "archive.segment_size",
		fmt.Sprintf("%s is a large part of archive.retention.size (%s)", a.SegmentSize, a.Retention.Size), "whole segments are removed")
}

func (d *decoder) clientTLS(path string, t *ClientTLS) {
	if t != nil && (t.Cert == "") != (t.Key == "") {
		d.fail(d.where(path), path, "cert and key go together", "give both or none")
	}
}

func (d *decoder) validateSource(c *Config, i int, names, paths map[string]int) {
	s := &c.Sources[i]
	path := fmt.Sprintf("sources[%d]", i)
	if j, dup := names[s.Name]; dup && s.Name != "" {
		d.fail(d.where(path+".name"), path+".name", fmt.Sprintf("%q is the name of sources[%d] (line %d) too", s.Name, j, c.Sources[j].Line), "give each its own")
	} else {
		names[s.Name] = i
		template := s.Path
		if template == "" {
			template = c.Ingest.Path
		}
		s.Path = strings.ReplaceAll(template, "{source}", s.Name)
		if j, dup := paths[s.Path]; dup {
			d.fail(d.where(path+".path"), path+".path", fmt.Sprintf("%s is the path of source %q (line %d) too", s.Path, c.Sources[j].Name, c.Sources[j].Line), "give each its own")
		} else {
			paths[s.Path] = i
		}
	}
	if s.PublicURL == "" {
		s.PublicURL = c.Ingest.PublicURL
	}
	d.validateWindow(c, s, path)
	d.validateAck(c, s, path+".ack")
	if s.ClientCA != "" && c.Ingest.TLS == nil {
		d.fail(d.where(path+".client_ca"), path+".client_ca", "wants TLS on the ingest listener", "add ingest.tls")
	}
	if s.Topic != "" && c.Forward == nil {
		d.warn(d.where(path+".topic"), path+".topic", "has no effect without forward", "add forward.kafka")
	}
}

// groups looks at the sources that share their events: a group wants two of one provider.
func (d *decoder) groups(c *Config) {
	members := map[string][]int{}
	for i := range c.Sources {
		if g := c.Sources[i].Dedupe.Group; g != "" {
			members[g] = append(members[g], i)
		}
	}
	for g, list := range members {
		for _, i := range list {
			path := fmt.Sprintf("sources[%d].dedupe.group", i)
			first := &c.Sources[list[0]]
			switch s := &c.Sources[i]; {
			case len(list) == 1:
				d.warn(d.where(path), path, fmt.Sprintf("no other source is of the group %q", g), "give the other one of the migration the same group")
			case s.Provider != first.Provider && s.Provider != "" && first.Provider != "":
				d.fail(d.where(path), path, fmt.Sprintf("%q holds %s (source %s) and %s", g, first.Provider, first.Name, s.Provider),
					"their events are no twins: ids of one provider say nothing about another's")
			case (s.Dedupe.Identity == "body") != (first.Dedupe.Identity == "body"):
				d.fail(d.where(path), path, fmt.Sprintf("source %s and this one differ in dedupe.identity", first.Name), "twins must have the same id: give both the same")
			}
		}
	}
}

func (d *decoder) validateWindow(c *Config, s *Source, path string) {
	if s.Dedupe.Window == 0 {
		s.Dedupe.Window = c.Dedupe.Window
	} else if a := c.Archive.Retention.Age; a > 0 && s.Dedupe.Window > a {
		d.fail(d.where(path+".dedupe.window"), path+".dedupe.window",
			fmt.Sprintf("%s is longer than archive.retention.age (%s)", FormatDuration(s.Dedupe.Window), FormatDuration(a)),
			"what is no longer kept cannot be known again: keep longer, or shorten the window")
	}
}

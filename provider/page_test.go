package provider

import (
	"regexp"
	"strings"
	"testing"
)

// noDocs are definitions of formats that no provider documents.
var noDocs = map[string]bool{"generic_hash_concat": true}

// unknownSchedule is what a definition says whose provider's repeats are not known.
const unknownSchedule = "not known to us"

var marked = regexp.MustCompile(`\[(V|V2|U)\]`)

// TestWholePage: `penstock providers show NAME` answers every question for every provider,
// if only by saying that it is not known. A new definition brings them all.
func TestWholePage(t *testing.T) {
	cat := builtins(t)
	for _, name := range cat.Names() {
		d, _ := cat.Get(name)
		for what, missing := range map[string]bool{
			"title":                              d.Title == "",
			"docs":                               d.Docs == "" && !noDocs[name],
			"setup (where the URL is entered)":   strings.TrimSpace(d.Setup) == "",
			"weaknesses":                         len(d.Weaknesses) == 0,
			"retry.schedule":                     d.Retry.Schedule == "",
			"retry.source, marked [V] or [U]":    !marked.MatchString(d.Retry.Source),
			"ip_ranges, or why there is no list": len(d.Addresses.Ranges)+len(d.Addresses.Refresh) == 0 && d.Addresses.None == "",
			"ip_ranges.source":                   len(d.Addresses.Ranges) > 0 && d.Addresses.Source == "",
			"what is verified":                   len(d.Verification()) == 0,
			"the answer":                         d.Answer() == "",
			"credentials":                        len(d.CredentialSpecs()) == 0,
			"canonical rows":                     len(d.Canonical) == 0,
			"samples":                            len(d.SampleTypes()) == 0,
		} {
			if missing {
				t.Errorf("%s: no %s", name, what)
			}
		}
		for _, c := range d.CredentialSpecs() {
			if c.About == "" {
				t.Errorf("%s: nothing says where %s is found", name, c.Name)
			}
		}
		for i := range d.Canonical {
			if d.Canonical[i].Source == "" {
				t.Errorf("%s: row %d of canonical has no source", name, i+1)
			}
		}
		fails := false
		for _, e := range d.CanonicalEvents() {
			fails = fails || strings.HasSuffix(e.Type, ".failed")
		}
		if fails && d.Failure.Source == "" {
			t.Errorf("%s: failures without failure.source: where the reasons are from, or why there are none", name)
		}
		// What is known is written as a schedule, and not beside the word that it is not.
		if strings.HasPrefix(d.Retry.Schedule, unknownSchedule) && d.Retry.Horizon > 0 {
			t.Errorf("%s: the schedule is not known, its end is", name)
		}
		page := d.Markdown()
		for _, part := range []string{"## Set it up", "The address to enter there: ", "## Credentials", "## Verification", "- answered: ", "- repeats: ", "- addresses", "Dedupe identity: ", "## Canonical types", "## What the scheme does not protect from", "## Samples"} {
			if !strings.Contains(page, part) {
				t.Errorf("%s: its page says nothing of %q", name, part)
			}
		}
	}
}

// TestNoList: a list of addresses and the reason why there is none exclude each other.
func TestNoList(t *testing.T) {
	const none = "ip_ranges: {none: \"your own server\"}\n"
	if d := parse(t, signedHead+none); !strings.Contains(d.Markdown(), "- addresses: your own server\n") {
		t.Errorf("%s", d.Markdown())
	}
	_, err := Parse("f.yaml", []byte(signedHead+"ip_ranges: {none: \"your own server\", date: \"2026-01-01\", source: s, ranges: [1.2.3.4]}\n"))
	if err == nil || !strings.Contains(err.Error(), "there is one") {
		t.Errorf("%v", err)
	}
}

// TestShapesIdentityOnPage: the page says what tells events apart, shape by shape.
func TestShapesIdentityOnPage(t *testing.T) {
	d, _ := builtins(t).Get("plaid")
	for _, want := range []string{"Dedupe identity: the hash of the signed content.", "Dedupe identity of signal, where `payment_id` is absent; `timestamp` is absent: none."} {
		if !strings.Contains(d.Markdown(), want) {
			t.Errorf("no %q in\n%s", want, d.Markdown())
		}
	}
}

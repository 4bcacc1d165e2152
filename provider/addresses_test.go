package provider

import (
	"fmt"
	"strings"
	"testing"
)

func TestPublishedRead(t *testing.T) {
	f := func(p AddressList, doc, want string) {
		t.Helper()
		list, err := p.Read([]byte(doc))
		got := fmt.Sprint(list)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || want == "" {
			t.Errorf("%q gives %s, want %s", doc, got, want)
		}
	}
	text := AddressList{Format: "text"}
	f(text, "3.18.12.63\r\n# of today\n10.0.0.0/8 # inside\n\n2a0a:a440::/29", "[3.18.12.63/32 10.0.0.0/8 2a0a:a440::/29]")
	f(text, "<html>moved</html>", "is no address")
	f(text, "", "[]")
	f(AddressList{Format: "json"}, `["1.2.3.4","1.2.3.0/24"]`, "[1.2.3.4/32 1.2.3.0/24]")
	f(AddressList{Format: "json", Paths: []string{"hooks", "more.here"}}, `{"hooks":["1.2.3.4"],"more":{"here":["5.6.7.8"]},"web":["9.9.9.9"]}`, "[1.2.3.4/32 5.6.7.8/32]")
	f(AddressList{Format: "json", Paths: []string{"items.*.cidr"}}, `{"items":[{"cidr":"1.2.3.4"},{"cidr":"5.6.7.0/24"}]}`, "[1.2.3.4/32 5.6.7.0/24]")
	f(AddressList{Format: "json", Paths: []string{"hooks"}}, `{"hooks_v2":["1.2.3.4"]}`, "its form has changed")
	f(AddressList{Format: "json", Paths: []string{"hooks"}}, `{"hooks":[]}`, "no addresses at")
	f(AddressList{Format: "json"}, `[1,2]`, "no addresses")
	f(AddressList{Format: "json"}, `no`, "no JSON")
	f(AddressList{Format: "json"}, `["`+strings.Repeat("x", 5000)+`"]`, "...")
}

// TestPublishedOf: what the definitions say of their lists can be fetched.
func TestPublishedOf(t *testing.T) {
	const head = "name: x\nscheme: hmac\nalgorithm: sha256\nsigned: \"{body}\"\nsignature: {header: X, encoding: hex}\n"
	f := func(text, want string) {
		t.Helper()
		_, err := Parse("x.yaml", []byte(head+text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	f(`ip_ranges: {date: "2026-01-01", ranges: [1.2.3.4], refresh: [{url: "https://x.example/ips", format: text}]}`, "")
	f(`ip_ranges: {date: "2026-01-01", ranges: [1.2.3.4], refresh: [{url: "http://x.example/ips", format: text}]}`, "no https URL")
	f(`ip_ranges: {date: "2026-01-01", ranges: [1.2.3.4], refresh: [{url: "https://u:p@x.example/ips", format: text}]}`, "no https URL")
	f(`ip_ranges: {date: "2026-01-01", ranges: [1.2.3.4], refresh: [{url: "https://x.example/ips", format: xml}]}`, "neither text nor json")
	f(`ip_ranges: {date: "2026-01-01", ranges: [1.2.3.4], refresh: [{url: "https://x.example/ips", format: text, paths: [a]}]}`, "has no paths")
	f(`ip_ranges: {date: "2026-01-01", refresh: [{url: "https://x.example/ips", format: text}]}`, "until the first refresh")
}

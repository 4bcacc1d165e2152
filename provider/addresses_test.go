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
	all := AddressList{Format: "json", Paths: []string{"*"}}
	f(all, `{"us":["1.2.3.4"],"eu":["5.6.7.8","2600:1f24:64:8000::/52"]}`, "[1.2.3.4/32 5.6.7.8/32 2600:1f24:64:8000::/52]")
	f(all, `{"us":[],"note":{"a":"1.2.3.4"}}`, "no addresses at")
	f(AddressList{Format: "json", Paths: []string{"regions.*.ipv4_cidrs"}},
		`{"last_updated_at":"2026-01-01","regions":{"US":{"ipv4_cidrs":["1.2.3.4/32"]},"EU":{"ipv4_cidrs":["5.6.7.8/32"]}},"changelog":[{"ipv4_cidrs":["9.9.9.9/32"]}]}`, "[1.2.3.4/32 5.6.7.8/32]")
	product := AddressList{Format: "json", Paths: []string{"items.*.cidr"}, Where: map[string]string{"product": "jira", "direction": "egress"}}
	f(product, `{"items":[{"cidr":"1.2.3.4","product":["jira","trello"],"direction":["ingress","egress"]},{"cidr":"5.6.7.0/24","product":["jira"],"direction":["ingress"]},
		{"cidr":"7.7.7.7","product":"jira","direction":"egress"},{"cidr":"8.8.8.8","product":["email"],"direction":["egress"]},{"cidr":"9.9.9.9"}]}`, "[1.2.3.4/32 7.7.7.7/32]")
	f(product, `{"items":[{"cidr":"1.2.3.4","products":["jira"],"direction":["egress"]}]}`, "no addresses at")
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
	f(`ip_ranges: {date: "2026-01-01", ranges: [1.2.3.4], refresh: [{url: "https://x.example/ips", format: json, where: {a: b}}]}`, "where needs paths")
	f(`ip_ranges: {date: "2026-01-01", ranges: [1.2.3.4], refresh: [{url: "https://x.example/ips", format: text, where: {a: b}}]}`, "has no paths")
	f(`ip_ranges: {date: "2026-01-01", refresh: [{url: "https://x.example/ips", format: text}]}`, "until the first refresh")
}

// FuzzAddressList: what is no list of addresses is an error, and never a list that it does
// not name.
func FuzzAddressList(f *testing.F) {
	forms := []AddressList{
		{Format: "text"}, {Format: "json"}, {Format: "json", Paths: []string{"*"}}, {Format: "json", Paths: []string{"regions.*.ipv4_cidrs", "hooks"}},
		{Format: "json", Paths: []string{"items.*.cidr"}, Where: map[string]string{"product": "jira"}},
	}
	for _, doc := range []string{
		"1.2.3.4\n# x\n10.0.0.0/8\n", `["1.2.3.4","2606:50c0::/32"]`, `{"us":["1.2.3.4"]}`, `{"regions":{"US":{"ipv4_cidrs":["1.2.3.4"]}},"hooks":["5.6.7.8"]}`,
		`{"items":[{"cidr":"1.2.3.4/24","product":["jira"]}]}`, "<html>", "1.2.3.4%eth0", "::ffff:1.2.3.4/120", "",
	} {
		for n := range forms {
			f.Add(uint8(n), []byte(doc))
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, doc []byte) {
		list, err := forms[int(n)%len(forms)].Read(doc)
		if err != nil {
			if list != nil || len(err.Error()) > 1000 {
				t.Errorf("an error with a list, or a long one: %d networks, %.100s", len(list), err)
			}
			return
		}
		for _, p := range list {
			if !p.IsValid() || p != p.Masked() || p.Addr().Zone() != "" {
				t.Errorf("%v is no network", p)
			}
		}
	})
}

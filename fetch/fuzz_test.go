package fetch

import (
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzAddress: an address that is fetched is https on the listed host and nothing else.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"https://sns.us-east-1.amazonaws.com/x.pem", "https://api.paypal.com:443/", "https://a@api.paypal.com/", "https://api.paypal.com.evil.example/", "http://api.paypal.com/",
		"https://api.paypal.com#x", "https://API.paypal.COM/a?b", "https://sns..amazonaws.com/", "https://api.paypal.com\\@evil.example/", "//api.paypal.com", "https:api.paypal.com", "https://[::1]/"} {
		f.Add(s)
	}
	v := (&Fetcher{}).For("api.paypal.com", "sns.*.amazonaws.com")
	f.Fuzz(func(t *testing.T, address string) {
		q, err := v.question(address, nil)
		if err != nil {
			return
		}
		u, err := url.Parse(q.url)
		if err != nil {
			t.Fatal(err)
		}
		host := strings.ToLower(u.Host)
		sns := strings.HasPrefix(host, "sns.") && strings.HasSuffix(host, ".amazonaws.com") && strings.Count(host, ".") == 3
		if u.Scheme != "https" || u.User != nil || host != "api.paypal.com" && !sns {
			t.Fatalf("%q is fetched from %q", address, u.Host)
		}
	})
}

// FuzzDial: what is connected to is a public address, however it is written.
func FuzzDial(f *testing.F) {
	for _, s := range []string{"1.1.1.1:443", "127.0.0.1:1", "[::1]:1", "[::ffff:10.0.0.1]:1", "[64:ff9b::7f00:1]:1", "[2002:7f00:1::]:1", "0.0.0.0:1", "[fe80::1%eth0]:1", "a:1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if guard("tcp", address, nil) != nil {
			return
		}
		a := netip.MustParseAddrPort(address).Addr().Unmap()
		if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a.Zone() != "" {
			t.Fatalf("%s may be dialled", address)
		}
	})
}

// FuzzCacheControl: a document lives within our bounds, whatever the header says.
func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"max-age=60", "no-store", "max-age=\"9\"", "max-age=-1", "max-age=99999999999", "MAX-AGE = 5,,", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if life := lifeOf(header); life < minLife || life > maxLife {
			t.Fatalf("%q lives %s", header, life)
		}
	})
}

// FuzzKept: a file that somebody else wrote into our directory is a document or is passed
// over.
func FuzzKept(f *testing.F) {
	for _, s := range []string{`{"url":"https://a/","key":"k","document":"AA=="}`, `{"key":"k"}`, `{"key":"k","document":"","fetched":"x"}`, "[", ""} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, "k"+suffix), text, 0o600); err != nil {
			t.Fatal(err)
		}
		kept, err := (&Fetcher{o: Options{Dir: dir}}).readFile("k")
		if err == nil && (kept.Key != "k" || len(kept.Document) == 0) {
			t.Fatalf("%q gives %+v", text, kept)
		}
	})
}

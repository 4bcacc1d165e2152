package ingest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool()}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

// issue makes a certificate; usage tells servers from clients.
func (a *authority) issue(t *testing.T, name string, usage x509.ExtKeyUsage, until time.Time) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"gateway"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

func (a *authority) client(t *testing.T, usage x509.ExtKeyUsage, until time.Time) *tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, "client", usage, until))
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

func (r *rig) sendTLS(cfg *tls.Config, raw string) (string, *tls.ConnectionState, error) {
	r.t.Helper()
	c, err := tls.Dial("tcp", r.addr, cfg)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, raw); err != nil {
		return "", nil, err
	}
	answer, err := io.ReadAll(c)
	state := c.ConnectionState()
	return string(answer), &state, err
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTLS: 1.2 and up, HTTP/1.1 only, and a changed file is used by the next handshake;
// a bad one is not.
func TestTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	put := func(name string) {
		cert, key := ca.issue(t, name, x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
		writeFile(t, keyFile, key)
		writeFile(t, certFile, cert)
		later := time.Now().Add(time.Minute)
		_ = os.Chtimes(certFile, later, later)
	}
	put("first")
	r := newRig(t, Options{TLS: &TLS{CertFile: certFile, KeyFile: keyFile, CheckEvery: time.Nanosecond}})
	f := func(cfg *tls.Config, name string) {
		t.Helper()
		cfg.RootCAs, cfg.ServerName = ca.pool, "gateway"
		answer, state, err := r.sendTLS(cfg, request("/in/s", "{}", "X-Test: ok"))
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, answer, 200)
		if got := state.PeerCertificates[0].Subject.CommonName; got != name {
			t.Errorf("certificate %q, want %q", got, name)
		}
		if state.NegotiatedProtocol == "h2" {
			t.Error("h2 was negotiated")
		}
	}
	f(&tls.Config{}, "first")
	f(&tls.Config{MaxVersion: tls.VersionTLS12}, "first")
	f(&tls.Config{NextProtos: []string{"h2", "http/1.1"}}, "first")
	put("second")
	f(&tls.Config{}, "second")
	writeFile(t, certFile, []byte("half a certif"))
	f(&tls.Config{}, "second")
	_ = os.Remove(certFile)
	f(&tls.Config{}, "second")
	put("third")
	f(&tls.Config{}, "third")
	if _, _, err := r.sendTLS(&tls.Config{RootCAs: ca.pool, ServerName: "gateway", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, ""); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: ok"))) // plain HTTP gets no HTTP answer
	if _, err := New(Options{TLS: &TLS{CertFile: "none.pem", KeyFile: keyFile}}, &memArchive{}); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("missing certificate file: %v", err)
	}
	if _, err := New(Options{TLS: &TLS{CertPEM: []byte("x"), KeyPEM: []byte("y")}}, &memArchive{}); err == nil {
		t.Error("a bad inline certificate was taken")
	}
}

// TestClientCertificates: a source that names CAs refuses who does not show a
// certificate of one of them; the others do not care.
func TestClientCertificates(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	cert, key := ca.issue(t, "gateway", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	mtls, second := testSource("mtls"), testSource("second")
	mtls.ClientCA, second.ClientCA = ca.pool, other.pool
	r := newRig(t, Options{TLS: &TLS{CertPEM: cert, KeyPEM: key}}, mtls, second, testSource("s"))
	hour := time.Now().Add(time.Hour)
	f := func(path string, client *tls.Certificate, want int) {
		t.Helper()
		cfg := &tls.Config{RootCAs: ca.pool, ServerName: "gateway"}
		if client != nil {
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client, nil }
		}
		answer, _, err := r.sendTLS(cfg, request(path, "{}", "X-Test: ok"))
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, answer, want)
		if want == 403 && headerOf(answer, "Connection") != "close" {
			t.Errorf("%s: the connection stays: %q", path, answer)
		}
	}
	f("/in/s", nil, 200)
	f("/in/mtls", nil, 403)
	f("/in/mtls", ca.client(t, x509.ExtKeyUsageClientAuth, hour), 200)
	f("/in/mtls", other.client(t, x509.ExtKeyUsageClientAuth, hour), 403)
	f("/in/second", other.client(t, x509.ExtKeyUsageClientAuth, hour), 200)
	f("/in/second", ca.client(t, x509.ExtKeyUsageClientAuth, hour), 403)
	f("/in/mtls", ca.client(t, x509.ExtKeyUsageServerAuth, hour), 403)
	f("/in/mtls", ca.client(t, x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Minute)), 403)
	f("/in/s", other.client(t, x509.ExtKeyUsageClientAuth, hour), 200)
	_, rejected := r.arch.all()
	if len(rejected) != 5 || rejected[0].Reason != "policy" {
		t.Errorf("%d refused kept, want 5 for policy", len(rejected))
	}
	// The verdict about a certificate is one source's, also on one connection.
	cfg := &tls.Config{RootCAs: ca.pool, ServerName: "gateway", Certificates: []tls.Certificate{*ca.client(t, x509.ExtKeyUsageClientAuth, hour)}}
	first := strings.Replace(request("/in/mtls", "{}", "X-Test: ok"), "Connection: close\r\n", "", 1)
	answer, _, err := r.sendTLS(cfg, first+request("/in/second", "{}", "X-Test: ok"))
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, answer, 200, 403)

	plain, err := New(Options{}, &memArchive{})
	if err != nil {
		t.Fatal(err)
	}
	if err := plain.SetSources([]Source{mtls}); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("client CA without TLS: %v", err)
	}
}

// TestProxyProtocol: the header of a trusted peer names the client; it must be there and
// come in time, and nobody else may send one.
func TestProxyProtocol(t *testing.T) {
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	r := newRig(t, Options{ProxyProtocol: local, ReadTimeout: 500 * time.Millisecond})
	remote := func() string {
		stored, _ := r.arch.all()
		return stored[len(stored)-1].RemoteIP.String()
	}
	post := request("/in/s", "{}", "X-Test: ok", "X-Forwarded-For: 192.0.2.1")
	v2 := func(from string) string {
		var b bytes.Buffer
		h := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.ParseIP(from), Port: 1}, &net.TCPAddr{IP: net.ParseIP(from), Port: 2})
		if _, err := h.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	f := func(header, want string) {
		t.Helper()
		wantStatus(t, r.send(header+post), 200)
		if got := remote(); got != want {
			t.Errorf("header %q: client %s, want %s", header, got, want)
		}
	}
	f("PROXY TCP4 203.0.113.7 10.0.0.1 1234 80\r\n", "203.0.113.7")
	f("PROXY TCP6 2001:db8::7 2001:db8::1 1234 80\r\n", "2001:db8::7")
	f("PROXY UNKNOWN\r\n", "127.0.0.1")
	f(v2("203.0.113.8"), "203.0.113.8")
	f(v2("2001:db8::9"), "2001:db8::9")
	n, _ := r.arch.all()
	for _, bad := range []string{"", "PROXY TCP4 203.0.113.7\r\n", "PROXY TCP4 x y 1 2\r\n", "PROXY "} {
		if got := statuses(r.send(bad + post)); len(got) > 0 && got[0] < 400 {
			t.Errorf("opening %q was answered %v", bad, got)
		}
	}
	if after, _ := r.arch.all(); len(after) != len(n) {
		t.Errorf("%d deliveries stored of connections with a bad opening", len(after)-len(n))
	}
	c := r.dial() // says nothing
	if _, err := io.ReadAll(c); isTimeout(err) {
		t.Error("a silent connection is not cut")
	}

	r = newRig(t, Options{ProxyProtocol: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	wantStatus(t, r.send(post), 200)
	for _, header := range []string{"PROXY TCP4 203.0.113.7 10.0.0.1 1234 80\r\n", v2("203.0.113.8")} {
		if got := statuses(r.send(header + post)); len(got) != 1 || got[0] != 400 {
			t.Errorf("the header of a stranger was answered %v, want 400", got)
		}
	}
	if stored, _ := r.arch.all(); len(stored) != 1 || stored[0].RemoteIP.String() != "127.0.0.1" {
		t.Errorf("stored %d deliveries", len(stored))
	}
}

package notify

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"
)

// postOffice is a mail server of one connection.
type postOffice struct {
	addr     string
	starttls bool // offered
	implicit bool // TLS from the first byte
	refuse   string
	cert     tls.Certificate
	pool     *x509.CertPool

	mu      sync.Mutex
	said    []string // what came, with "plain " before what came without TLS
	letter  string
	working sync.WaitGroup
}

func newPostOffice(t *testing.T, change func(*postOffice)) *postOffice {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	p := &postOffice{cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool: x509.NewCertPool(), starttls: true}
	p.pool.AddCert(cert)
	change(p)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = ln.Addr().String()
	p.working.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p.serve(conn)
		}
	})
	t.Cleanup(func() { ln.Close(); p.working.Wait() })
	return p
}

func (p *postOffice) serve(conn net.Conn) {
	defer func() { conn.Close() }()
	secure := "plain "
	conf := &tls.Config{Certificates: []tls.Certificate{p.cert}}
	if p.implicit {
		conn, secure = tls.Server(conn, conf), ""
	}
	in := bufio.NewReader(conn)
	say := func(s string) { _, _ = io.WriteString(conn, s+"\r\n") }
	say("220 ready")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		p.mu.Lock()
		p.said = append(p.said, secure+line)
		p.mu.Unlock()
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch {
		case p.refuse != "" && strings.HasPrefix(p.refuse, verb+" "):
			say(strings.TrimPrefix(p.refuse, verb+" "))
		case verb == "EHLO" && p.starttls && secure != "":
			say("250-here\r\n250-AUTH PLAIN\r\n250 STARTTLS")
		case verb == "EHLO":
			say("250-here\r\n250 AUTH PLAIN")
		case verb == "STARTTLS":
			say("220 go")
			conn, secure = tls.Server(conn, conf), ""
			in = bufio.NewReader(conn)
		case verb == "AUTH":
			say("235 yes")
		case verb == "DATA":
			say("354 go")
			var b strings.Builder
			for {
				l, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				b.WriteString(strings.TrimPrefix(l, "."))
			}
			p.mu.Lock()
			p.letter = b.String()
			p.mu.Unlock()
			say("250 taken")
		default:
			say("250 ok")
		}
	}
}

func (p *postOffice) heard() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said, "\n")
}

func (p *postOffice) send(t *testing.T, change func(*SMTP)) error {
	s := &SMTP{Address: p.addr, Username: "penstock", Password: "the mail password", From: "Penstock <gateway@example.com>", To: []string{"ops@example.com", "Zoë <zoe@example.com>"}, TLS: StartTLS}
	change(s)
	o := options()
	o.RootCAs = p.pool
	m := sample()
	m.Lines = append(m.Lines, "Überfällig", ".")
	m.Rule = "bad\r\nBcc: all@example.com"
	return newDelivery(Channel{Name: "mail", Kind: Email, SMTP: s, Private: loop}, o)(t.Context(), m)
}

func TestMail(t *testing.T) {
	for _, implicit := range []bool{false, true} {
		p := newPostOffice(t, func(p *postOffice) { p.implicit = implicit })
		if err := p.send(t, func(s *SMTP) {
			if implicit {
				s.TLS = TLS
			}
		}); err != nil {
			t.Fatal(err)
		}
		heard := p.heard()
		auth := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00penstock\x00the mail password"))
		for _, want := range []string{"\n" + auth, "\nMAIL FROM:<gateway@example.com>", "\nRCPT TO:<ops@example.com>", "\nRCPT TO:<zoe@example.com>"} {
			if !strings.Contains(heard, want) {
				t.Errorf("%q was not said:\n%s", want, heard)
			}
		}
		if strings.Contains(heard, "plain AUTH") || strings.Contains(heard, "plain MAIL") {
			t.Errorf("said without TLS:\n%s", heard)
		}
		letter, err := netmail.ReadMessage(strings.NewReader(p.letter))
		if err != nil {
			t.Fatalf("%v in\n%s", err, p.letter)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(letter.Body))
		if err != nil || !strings.Contains(strings.ReplaceAll(string(body), "\r\n", "\n"), "shop: 14 refused <!channel> @everyone & more\nÜberfällig\n.\n") {
			t.Errorf("%v: %q", err, body)
		}
		subject, _ := new(mime.WordDecoder).DecodeHeader(letter.Header.Get("Subject"))
		if subject != "[penstock] firing: bad Bcc: all@example.com" || letter.Header.Get("Bcc") != "" {
			t.Errorf("subject %q, headers %v", subject, letter.Header)
		}
	}
}

// TestMailWithoutTLS: a password leaves under TLS or not at all.
func TestMailWithoutTLS(t *testing.T) {
	p := newPostOffice(t, func(p *postOffice) { p.starttls = false })
	if err := p.send(t, func(*SMTP) {}); err == nil || !strings.Contains(err.Error(), "STARTTLS") {
		t.Errorf("%v", err)
	}
	if err := p.send(t, func(s *SMTP) { s.TLS = Plain }); err == nil {
		t.Error("a password was sent")
	}
	other := newPostOffice(t, func(*postOffice) {})
	p = newPostOffice(t, func(*postOffice) {})
	p.pool = other.pool
	if err := p.send(t, func(*SMTP) {}); err == nil {
		t.Error("a stranger's certificate was taken")
	}
	if heard := p.heard() + other.heard(); strings.Contains(heard, "AUTH PLAIN") {
		t.Error(heard)
	}
	p = newPostOffice(t, func(p *postOffice) { p.starttls = false })
	if err := p.send(t, func(s *SMTP) { s.TLS, s.Username, s.Password = Plain, "", "" }); err != nil || p.letter == "" {
		t.Errorf("%v", err)
	}
}

// TestMailRefused: 4xx may pass and 5xx will not; the server's words stay out.
func TestMailRefused(t *testing.T) {
	for answer, permanent := range map[string]bool{"RCPT 550 no ops@example.com here": true, "RCPT 451 later": false, "AUTH 535 bad penstock": true} {
		p := newPostOffice(t, func(p *postOffice) { p.refuse = answer })
		err := p.send(t, func(*SMTP) {})
		var f *failure
		if !errors.As(err, &f) || f.permanent != permanent || strings.Contains(err.Error(), "example.com") || strings.Contains(err.Error(), "penstock") {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

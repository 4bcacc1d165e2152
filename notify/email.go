package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"time"
)

// How mail goes out.
const (
	StartTLS = "starttls"
	TLS      = "tls"
	Plain    = "none"
)

// mail hands one message to the channel's mail server.
func mail(ctx context.Context, ch Channel, o Options, m *Message) error {
	s := ch.SMTP
	host, _, err := net.SplitHostPort(s.Address)
	if err != nil {
		return &failure{err: errors.New("the server's address cannot be read"), permanent: true}
	}
	conn, err := o.Dial(ch.Private)(ctx, "tcp", s.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(at) // a connection that cannot have one is still bounded by the server
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: o.RootCAs}
	if s.TLS == TLS {
		conn = tls.Client(conn, conf)
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return smtpError(err)
	}
	defer c.Close()
	if err := greet(c, s, conf, host); err != nil {
		return smtpError(err)
	}
	return smtpError(letter(c, s, m, o.Now()))
}

// greet logs in. Without TLS no password leaves, whatever the server offers.
func greet(c *smtp.Client, s *SMTP, conf *tls.Config, host string) error {
	if s.TLS == StartTLS {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return errors.New("the server offers no STARTTLS")
		}
		if err := c.StartTLS(conf); err != nil {
			return fmt.Errorf("starttls: %w", err)
		}
	}
	if s.Username == "" {
		return nil
	}
	if s.TLS == Plain {
		return &failure{err: errors.New("a password is not sent without TLS"), permanent: true}
	}
	return c.Auth(smtp.PlainAuth("", s.Username, s.Password, host))
}

func letter(c *smtp.Client, s *SMTP, m *Message, now time.Time) error {
	if err := c.Mail(address(s.From)); err != nil {
		return err
	}
	for _, to := range s.To {
		if err := c.Rcpt(address(to)); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(compose(s, m, now)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // it has the letter
	return nil
}

// address is what stands in the envelope of "Name <a@b>".
func address(s string) string {
	if i := strings.LastIndexByte(s, '<'); i >= 0 {
		return strings.TrimSuffix(s[i+1:], ">")
	}
	return s
}

func compose(s *SMTP, m *Message, now time.Time) []byte {
	var b strings.Builder
	_, domain, _ := strings.Cut(address(s.From), "@")
	for _, h := range [][2]string{
		{"From", s.From}, {"To", strings.Join(s.To, ", ")}, {"Subject", mime.QEncoding.Encode("utf-8", clean(maskPANs("[penstock] "+m.Title()), 150))},
		{"Date", now.UTC().Format(time.RFC1123Z)}, {"Message-ID", "<" + m.ID + "@" + domain + ">"},
		{"Auto-Submitted", "auto-generated"}, {"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"}, {"Content-Transfer-Encoding", "quoted-printable"},
	} {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	_, _ = q.Write([]byte(m.text() + "\n")) // into memory
	_ = q.Close()
	return []byte(b.String())
}

// smtpError keeps the server's code and drops its words: they repeat addresses.
func smtpError(err error) error {
	var te *textproto.Error
	if errors.As(err, &te) {
		return &failure{err: fmt.Errorf("the mail server answered %d", te.Code), permanent: te.Code >= 500}
	}
	return err
}

package ingest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// TLS says where the server's certificate comes from: two PEM files, or the PEM itself
// where a configuration holds it. Files are read again when they change.
type TLS struct {
	CertFile, KeyFile string
	CertPEM, KeyPEM   []byte
	CheckEvery        time.Duration // how often a handshake looks at the files; default 1 s
}

// certStore holds the certificate in force. It looks at the files when a handshake asks,
// at most once per interval, so it needs no goroutine, and a swapped symlink (Kubernetes)
// is seen like any other change.
type certStore struct {
	from    TLS
	log     *zap.Logger
	current atomic.Pointer[tls.Certificate]
	next    atomic.Int64 // unix ns of the next look

	plain, ask *tls.Config // without and with a client certificate asked for; one of each, so that sessions resume

	mu        sync.Mutex // protects what follows
	cert, key os.FileInfo
}

func newCertStore(from TLS, log *zap.Logger) (*certStore, error) {
	if from.CheckEvery == 0 {
		from.CheckEvery = time.Second
	}
	s := &certStore{from: from, log: log}
	// HTTP/1.1 is all that fasthttp speaks, so nothing else is offered.
	s.plain = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.get, NextProtos: []string{"http/1.1"}}
	s.ask = s.plain.Clone()
	s.ask.ClientAuth = tls.RequestClientCert
	// A resumed session would bring along a certificate that was shown in another life
	// of the configuration.
	s.ask.SessionTicketsDisabled = true
	if len(from.CertPEM) > 0 || len(from.KeyPEM) > 0 {
		pair, err := tls.X509KeyPair(from.CertPEM, from.KeyPEM)
		if err != nil {
			return nil, fmt.Errorf("tls certificate of the configuration: %w", err)
		}
		s.current.Store(&pair)
		return s, nil
	}
	if _, err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

// load reads the files if they changed since they were read. On an error the certificate
// in force stays.
func (s *certStore) load() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cert, err := os.Stat(s.from.CertFile)
	if err != nil {
		return false, fmt.Errorf("tls certificate: %w", err)
	}
	key, err := os.Stat(s.from.KeyFile)
	if err != nil {
		return false, fmt.Errorf("tls key: %w", err)
	}
	if sameFile(s.cert, cert) && sameFile(s.key, key) {
		return false, nil
	}
	pair, err := tls.LoadX509KeyPair(s.from.CertFile, s.from.KeyFile)
	if err != nil {
		return false, fmt.Errorf("tls certificate %s with key %s: %w", s.from.CertFile, s.from.KeyFile, err)
	}
	s.current.Store(&pair)
	s.cert, s.key = cert, key
	return true, nil
}

func sameFile(a, b os.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (s *certStore) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now().UnixNano()
	if due := s.next.Load(); s.from.CertFile != "" && now >= due && s.next.CompareAndSwap(due, now+int64(s.from.CheckEvery)) {
		switch changed, err := s.load(); {
		case err != nil:
			s.log.Warn("new tls certificate is not used, the old one stays", zap.Error(err))
		case changed:
			s.log.Info("tls certificate was read again", zap.String("file", s.from.CertFile))
		}
	}
	return s.current.Load(), nil
}

// tlsConfig is the configuration of the next handshake. A client certificate is asked for
// only when some source wants one, and judged when the request has named the source.
func (s *Server) tlsConfig() *tls.Config {
	if s.table.Load().clientCA {
		return s.tls.ask
	}
	return s.tls.plain
}

var errNoClientCert = errors.New("no client certificate")

// clientCert checks the connection's client certificate against src's CAs, once per
// connection and source.
func (c *conn) clientCert(src *source) bool {
	if c.certOf != src {
		c.certOf = src
		c.certOK = c.verifyCert(src, time.Now()) == nil
	}
	return c.certOK
}

func (c *conn) verifyCert(src *source, now time.Time) error {
	if c.tls == nil {
		return errNoClientCert
	}
	chain := c.tls.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return errNoClientCert
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         src.ClientCA,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

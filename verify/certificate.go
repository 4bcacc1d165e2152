package verify

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"sync/atomic"
	"time"

	"penstock/provider"
)

// certificates are published documents, parsed once. A handful of them are in use at a
// time, so the last one that was asked for is all that is kept.
type certificates struct {
	v    *Verifier
	last atomic.Pointer[parsedCertificate]
}

type parsedCertificate struct {
	url   string
	doc   []byte
	chain []*x509.Certificate
	key   key
}

// at gives the certificate chain at an address that the scheme has pinned, the leaf first,
// and the leaf's key. A reason says why there is none.
func (c *certificates) at(address string) (*parsedCertificate, string) {
	if c.v.source == nil {
		return nil, KeyUnavailable
	}
	doc, err := c.v.source.Fetch(address)
	if err != nil {
		return nil, KeyUnavailable
	}
	if last := c.last.Load(); last != nil && last.url == address && sameDocument(last.doc, doc) {
		return last, ""
	}
	p, err := parseChain(doc, c.v.s.Scheme)
	if err != nil {
		return nil, KeyUnavailable
	}
	p.url, p.doc = address, bytes.Clone(doc)
	c.last.Store(p)
	return p, ""
}

// maxChain bounds the certificates of one document.
const maxChain = 8

func parseChain(doc []byte, scheme string) (*parsedCertificate, error) {
	p := &parsedCertificate{}
	for block, rest := pem.Decode(doc); block != nil && len(p.chain) < maxChain; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		p.chain = append(p.chain, cert)
	}
	if len(p.chain) == 0 {
		return nil, errors.New("no certificate in it")
	}
	pub, ok := p.chain[0].PublicKey.(*rsa.PublicKey)
	if !ok || pub.N.BitLen() < 2048 {
		return nil, errors.New("its key is no RSA key of 2048 bits")
	}
	p.key = key{name: "published certificate", public: true, rsa: pub, fp: fingerprint(string(p.chain[0].RawSubjectPublicKeyInfo))}
	p.key.by = scheme + ":" + p.key.fp
	return p, nil
}

// valid says whether the leaf's time holds now.
func (p *parsedCertificate) valid(now time.Time) bool {
	return !now.Before(p.chain[0].NotBefore) && !now.After(p.chain[0].NotAfter)
}

// trusted says whether the chain leads to a root that this machine trusts (roots nil), and
// the leaf is for one of names.
func (p *parsedCertificate) trusted(now time.Time, roots *x509.CertPool, names []string) bool {
	between := x509.NewCertPool()
	for _, c := range p.chain[1:] {
		between.AddCert(c)
	}
	leaf := p.chain[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return false
	}
	for _, name := range names {
		if leaf.Subject.CommonName == name {
			return true
		}
	}
	return false
}

// plainURL reads an address that is https and nothing but host, path and query.
func plainURL(text []byte) *url.URL {
	if len(text) == 0 || len(text) > 2048 {
		return nil
	}
	u, err := url.Parse(string(text))
	if err != nil || u.Scheme != "https" || u.User != nil || u.Port() != "" || u.Fragment != "" || u.Opaque != "" || u.Hostname() == "" || u.Host != u.Hostname() {
		return nil
	}
	return u
}

// devCertificate makes up a key and, for the credentials that want one, a certificate.
func devCertificate(def *provider.Definition, into provider.Credentials) error {
	pair, err := newKeyPair(&provider.Scheme{Scheme: "rsa"}, rand.Reader)
	if err != nil {
		return err
	}
	signing, err := newSigningKey(pair.private)
	if err != nil {
		return err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dev." + def.Name}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, signing.signer.Public(), signing.signer)
	if err != nil {
		return err
	}
	into["certificates"] = []string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
	into["signing_key"] = []string{pair.private}
	return nil
}

// ownRSA is the credential whose key made sig over text by alg.
func ownRSA(keys []key, alg algorithm, text, sig []byte) *key {
	for i := range keys {
		if k := &keys[i]; k.rsa != nil && rsa.VerifyPKCS1v15(k.rsa, cryptoHash(alg), digestOf(cryptoHash(alg), text), sig) == nil {
			return k
		}
	}
	return nil
}

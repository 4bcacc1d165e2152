package provider

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/valyala/fastjson"
)

// JWT is the data of scheme jwt: a signed token beside the delivery (RFC 7519 in compact
// form) whose claims say who sent it, when, and, where the provider has it so, which body
// or URL it goes with. The signature never comes with an algorithm of the sender's choice:
// the kind of the key decides, and Algorithms are what may be named at all.
type JWT struct {
	Header string `yaml:"header,omitempty"`
	Query  string `yaml:"query,omitempty"`
	JSON   string `yaml:"json,omitempty"`   // path in the body
	Prefix string `yaml:"prefix,omitempty"` // "Bearer ", in any letter case; without one there must be none
	// Algorithms are of HS256 HS384 HS512 RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384
	// ES512 EdDSA.
	Algorithms []string `yaml:"algorithms"`
	// Require names claims that must be there. exp, nbf and iat are held against the clock
	// wherever they are; Tolerance of the scheme bounds the age by iat.
	Require []string      `yaml:"require,omitempty"`
	Leeway  time.Duration `yaml:"leeway,omitempty"` // between the clocks, for exp, nbf and a young iat
	Claims  []JWTClaim    `yaml:"claims,omitempty"`
}

// JWTClaim is one claim that must hold. A merchant credential with the field claim:NAME
// compares a claim with what the source is configured for.
type JWTClaim struct {
	Claim string `yaml:"claim"`
	// Is lists the texts that it may be; True wants the JSON literal true.
	Is   []string `yaml:"is,omitempty"`
	True bool     `yaml:"true,omitempty"`
	// Equals is url: the URL that was called. A claim that is a list must hold it.
	Equals string `yaml:"equals,omitempty"`
	// SHA256 is the SHA-256 of the body, the url, or Atlassian's canonical query (qsh).
	SHA256   string `yaml:"sha256,omitempty"`
	Encoding string `yaml:"encoding,omitempty"` // hex (default), base64, base64url
	// Empty is absent where an empty body has no such claim; one that is there then refuses.
	Empty string `yaml:"empty,omitempty"`
}

// Published is what the provider publishes for verification.
type Published struct {
	// Hosts may be asked, and no other; "*" stands for one label.
	Hosts []string `yaml:"hosts,omitempty"`
	// URL is the address of the keys, where it is always the same.
	URL string `yaml:"url,omitempty"`
	// Format is what stands there: jwks (default; a JSON Web Key Set), pem (a key or a
	// certificate, several one after another), or json (a text in PEM at Path).
	Format string `yaml:"format,omitempty"`
	Path   string `yaml:"path,omitempty"` // "config.webhook.public_key"
	// Ask is where one key is asked for by the id that a delivery names.
	Ask *AskForKey `yaml:"ask,omitempty"`
}

// AskForKey is a POST with a JSON object: credentials, and the key's id. The answer holds
// the key (a JWK) as the member "key", with its end as "expired_at" where it has one.
type AskForKey struct {
	URL  string            `yaml:"url"`  // {environment} is that setting, unset the first of its values
	With map[string]string `yaml:"with"` // member -> credential
	ID   string            `yaml:"id"`   // member that is the key's id
}

// publicSchemes verify signed bytes with a public key, which may be a published one.
var publicSchemes = []string{"rsa", "ecdsa", "ed25519"}

func (c *schemeCheck) published(p *Published) {
	generic := contains(publicSchemes, c.s.Scheme)
	if !generic && c.s.Scheme != "jwt" && !IsOwnScheme(c.s.Scheme) {
		c.add("published", "scheme %s verifies with a shared secret: no published key is asked for", c.s.Scheme)
	}
	u, err := url.Parse(p.URL)
	switch {
	case p.URL == "" && generic:
		c.add("published.url", "missing: where the keys stand")
	case p.URL == "":
	case err != nil || u.Scheme != "https" || u.Host == "":
		c.add("published.url", "%q: https:// only", p.URL)
	case !contains(p.Hosts, u.Host):
		c.add("published.hosts", "%s is not among them, and published.url is there: it could never be asked", u.Host)
	}
	c.oneOf("published.format", p.Format, []string{"jwks", "pem", "json"}, false)
	if (p.Format == "json") != (p.Path != "") {
		c.add("published.path", "goes with format json, and format json needs it: where in the document the key stands")
	}
	if p.Format != "" && p.Format != "jwks" && !generic {
		c.add("published.format", "%q: schemes rsa, ecdsa and ed25519 alone read a key that is no key set", p.Format)
	}
	if p.Format != "" && p.Format != "jwks" && c.s.KeyID != nil {
		c.add("published.format", "%q: such a key has no id, and key_id asks for one", p.Format)
	}
	if p.Ask != nil && (!strings.HasPrefix(p.Ask.URL, "https://") || p.Ask.ID == "" || c.s.Scheme != "jwt") {
		c.add("published.ask", "a url with https://, the member id, and scheme jwt are wanted")
	}
	if len(p.Hosts) == 0 && c.s.Settings["jwks_url"] == nil {
		c.add("published.hosts", "missing: which hosts may be asked")
	}
}

var jwtAlgorithms = []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

func (c *schemeCheck) jwt() {
	j := c.s.JWT
	if (j != nil) != (c.s.Scheme == "jwt") {
		c.add("jwt", "goes with scheme jwt, and scheme jwt needs it")
	}
	if c.s.Published != nil {
		c.published(c.s.Published)
	}
	if j == nil {
		return
	}
	places := 0
	for _, p := range []string{j.Header, j.Query, j.JSON} {
		if p != "" {
			places++
		}
	}
	if places != 1 {
		c.add("jwt", "say where the token stands: one of header, query, json")
	}
	if len(j.Algorithms) == 0 {
		c.add("jwt.algorithms", "missing: which of %s the provider signs with", strings.Join(jwtAlgorithms, ", "))
	}
	for _, a := range j.Algorithms {
		c.oneOf("jwt.algorithms", a, jwtAlgorithms, true)
	}
	if c.s.Tolerance > 0 && !contains(j.Require, "iat") {
		c.add("jwt.require", "iat is missing: tolerance bounds the age by it")
	}
	if j.Leeway < 0 {
		c.add("jwt.leeway", "%s is negative", j.Leeway)
	}
	for i, cl := range j.Claims {
		at := fmt.Sprintf("jwt.claims[%d]", i)
		kinds := 0
		for _, set := range []bool{len(cl.Is) > 0, cl.True, cl.Equals != "", cl.SHA256 != ""} {
			if set {
				kinds++
			}
		}
		if cl.Claim == "" || kinds != 1 {
			c.add(at, "a claim and one of is, true, equals, sha256 are wanted")
		}
		c.oneOf(at+".equals", cl.Equals, []string{"url"}, false)
		c.oneOf(at+".sha256", cl.SHA256, []string{"body", "url", "query"}, false)
		c.oneOf(at+".encoding", cl.Encoding, []string{"hex", "base64", "base64url"}, false)
		c.oneOf(at+".empty", cl.Empty, []string{"absent"}, false)
		if cl.Empty != "" && cl.SHA256 != "body" {
			c.add(at+".empty", "goes with sha256: body")
		}
	}
}

// binds says whether a claim holds the hash of that part of the request.
func (j *JWT) binds(part string) bool {
	if j == nil {
		return false
	}
	for _, c := range j.Claims {
		if c.SHA256 == part {
			return true
		}
	}
	return false
}

// maxToken bounds a token that is read.
const maxToken = 16 << 10

// payload is the text of the token's claims. It is read for the event only, after the
// delivery was verified.
func (j *JWT) payload(r *Request) []byte {
	var token []byte
	switch {
	case j == nil:
	case j.Header != "":
		token, _ = r.Header.Get(j.Header)
	case j.JSON != "":
		var p fastjson.Parser
		if doc, err := p.ParseBytes(r.Body); err == nil {
			token = doc.GetStringBytes(strings.Split(j.JSON, ".")...)
		}
	}
	if len(token) < len(j.prefix()) || len(token) > maxToken {
		return nil
	}
	parts := bytes.Split(token[len(j.prefix()):], []byte{'.'})
	if len(parts) != 3 {
		return nil
	}
	out, err := base64.RawURLEncoding.AppendDecode(nil, parts[1])
	if err != nil {
		return nil
	}
	return out
}

func (j *JWT) prefix() string {
	if j == nil {
		return ""
	}
	return j.Prefix
}

package provider

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var (
	schemeNames = []string{"hmac", "hash", "hash_concat", "rsa", "ecdsa", "ed25519", "standard_webhooks", "token", "basic", "none"}
	// OwnSchemes are the schemes that package verify has code of its own for, one name each.
	OwnSchemes = []string{"braintree", "jwt", "mailgun", "mercadopago", "payfast", "paypal", "paysera", "przelewy24", "sns", "tpay", "truelayer", "trustly", "vipps", "wechat"}
	// AckBuilders are the answers that package verify computes.
	AckBuilders = []string{"wayforpay", "adobe_sign"}
	// ChallengeBuilders are the handshakes that package verify answers by code of its own.
	ChallengeBuilders = []string{"feishu"}
	algorithmNames    = []string{"md5", "sha1", "sha256", "sha384", "sha512", "sha3-256"}
	encodingNames     = []string{"hex", "hex_lower", "HEX", "base64", "base64url"}
	unitNames         = []string{"s", "ms", "s_or_ms", "rfc3339", "http_date"}
	bodyNames         = []string{"auto", "any", "json", "form", "query", "xml"}
	roleNames         = []string{"key", "public_key", "username", "password", "merchant", "verify_token", "signing_key", "info", "part", "reading_key", "answer_key"}
	settingNames      = []string{"algorithm", "min_algorithm", "fields", "separator", "key_position", "encoding", "signature_field", "required_signed", "body", "legacy_sha1", "livemode", "notification_url", "without_passphrase", "require", "encrypted", "used_tokens", "jwks_url", "base_path", "allowed_jku", "allowed_cert_hosts", "environment"}
)

// Validate returns every mistake of the scheme part, each a *SchemeError.
func (s *Scheme) Validate() []error {
	c := &schemeCheck{s: s}
	if !IsOwnScheme(s.Scheme) {
		c.oneOf("scheme", s.Scheme, schemeNames, true)
	}
	c.primitive()
	c.message()
	c.all()
	c.signature()
	c.timestamp()
	c.credentials()
	c.jwt()
	c.answers()
	return c.errs
}

type schemeCheck struct {
	s    *Scheme
	errs []error
}

func (c *schemeCheck) add(path, format string, args ...any) {
	c.errs = append(c.errs, &SchemeError{Path: path, Message: fmt.Sprintf(format, args...)})
}

func (c *schemeCheck) oneOf(path, v string, list []string, required bool) {
	if v == "" {
		if required {
			c.add(path, "missing (one of %s)", strings.Join(list, ", "))
		}
		return
	}
	if !contains(list, v) {
		c.add(path, "%q is not one of %s%s", v, strings.Join(list, ", "), guess(v, list))
	}
}

// guess is meant where the names are told anyway.
func guess(word string, names []string) string {
	if g := meant(word, names); strings.Contains(g, "did you mean") {
		return g
	}
	return ""
}

// IsOwnScheme says whether verify has code of its own for the scheme of that name.
func IsOwnScheme(name string) bool { return contains(OwnSchemes, name) }

// signs says whether the scheme signs bytes, as opposed to carrying a shared token.
func (c *schemeCheck) signs() bool {
	switch c.s.Scheme {
	case "hmac", "hash", "hash_concat", "rsa", "ecdsa", "ed25519":
		return true
	}
	return false
}

func (c *schemeCheck) primitive() {
	s := c.s
	c.oneOf("algorithm", s.Algorithm, algorithmNames, false)
	for word, alg := range s.Algorithms {
		c.oneOf("algorithms."+word, alg, algorithmNames, true)
	}
	switch s.Scheme {
	case "hmac", "hash", "hash_concat", "rsa", "ecdsa":
		if s.Algorithm == "" && len(s.Algorithms) == 0 {
			c.add("algorithm", "missing (one of %s)", strings.Join(algorithmNames, ", "))
		}
	}
	if tagged := s.Signature.Format == "tagged"; tagged && len(s.Algorithms) == 0 {
		c.add("algorithms", "missing: a tagged signature names its algorithm")
	} else if len(s.Algorithms) > 0 && s.Signature.AlgorithmKey == "" && !tagged {
		c.add("signature.algorithm_key", "missing: algorithms lets the request choose, so it must say where")
	}
	if s.Scheme == "rsa" || s.Scheme == "ecdsa" {
		if s.Algorithm == "md5" || s.Algorithm == "sha3-256" {
			c.add("algorithm", "%s is not used with %s (sha1, sha256, sha384, sha512)", s.Algorithm, s.Scheme)
		}
	}
	switch {
	case IsOwnScheme(s.Scheme):
		c.oneOf("key", s.Key, []string{"utf8", "base64", "hex", "pem", "base64_pem", "jwks"}, false)
	case s.Scheme == "rsa" || s.Scheme == "ecdsa" || s.Scheme == "ed25519":
		c.oneOf("key", s.Key, []string{"pem", "base64_pem", "hex", "base64", "whpk", "jwks"}, false)
	default:
		c.oneOf("key", s.Key, []string{"utf8", "base64", "hex", "nfkd", "whsec", "whsec_or_text"}, false)
	}
	c.oneOf("key_position", s.KeyPosition, []string{"suffix", "prefix", "both"}, false)
	if s.KeyPosition != "" && s.Scheme != "hash" && s.Scheme != "hash_concat" {
		c.add("key_position", "means something for hash and hash_concat only")
	}
	c.oneOf("body", s.Body, bodyNames, false)
}

func (c *schemeCheck) message() {
	s := c.s
	if s.Scheme == "hash_concat" && len(s.Fields) == 0 {
		c.add("fields", "missing: the signed fields in their order")
	}
	if c.signs() && s.Signed == "" && len(s.Fields) == 0 {
		c.add("signed", "missing: the template of the signed bytes, such as {body} or {ts}.{body}")
	}
	if s.Signed != "" && len(s.Fields) > 0 {
		c.add("signed", "a scheme has a template or a field list, not both")
	}
	if len(s.Fields) > 32 {
		c.add("fields", "%d fields, at most 32", len(s.Fields))
	}
	if s.Signed != "" {
		pieces, err := ParseTemplate(s.Signed)
		if err != nil {
			c.add("signed", "%v", err)
		}
		for _, p := range pieces {
			if p.Kind == "ts" && s.Timestamp == nil {
				c.add("timestamp", "missing: {ts} is signed, so say where it stands")
			}
			if p.Kind == "id" && s.ID == nil {
				c.add("id", "missing: {id} is signed, so say where it stands")
			}
			if _, ok := OwnPieces[p.Arg]; p.Kind == "own" && !ok {
				c.add("signed", "{own:%s} is no piece that there is code for", p.Arg)
			}
		}
	}
	seen := map[string]bool{}
	for i, f := range s.Fields {
		at := fmt.Sprintf("fields[%d]", i)
		if f.Path == "" {
			c.add(at, "empty field name")
		}
		if seen[f.Path] {
			c.add(at, "%q is there twice", f.Path)
		}
		seen[f.Path] = true
		c.oneOf(at+".syntax", f.Syntax, []string{"text", "amount", "currency", "merchant", "digits", "bool", "word", "datetime"}, false)
		for _, form := range f.Forms {
			c.oneOf(at+".forms", form, []string{"raw", "trimmed", "two_decimals"}, true)
		}
	}
	for i, f := range s.RequiredSigned {
		if !seen[f] {
			c.add(fmt.Sprintf("required_signed[%d]", i), "%q is not among fields: the signature does not prove it", f)
		}
	}
}

func (c *schemeCheck) signature() {
	s, g := c.s, &c.s.Signature
	if c.signs() {
		places := 0
		for _, p := range []string{g.Header, g.Field, g.Query} {
			if p != "" {
				places++
			}
		}
		if places != 1 {
			c.add("signature", "say where the signature stands: one of header, field, query")
		}
		c.oneOf("signature.encoding", g.Encoding, encodingNames, true)
	}
	c.oneOf("signature.encoding", g.Encoding, encodingNames, false)
	c.oneOf("signature.format", g.Format, []string{"plain", "list", "words", "csv", "tagged"}, false)
	c.oneOf("signature.several", g.Several, []string{"equal", "first", "any"}, false)
	if (g.Format == "list" || g.Format == "words") && g.Key == "" {
		c.add("signature.key", "missing: the label of the signatures in a %s", g.Format)
	}
	if len(g.Separator) > 1 {
		c.add("signature.separator", "%q: one character", g.Separator)
	}
	if g.Numbered < 0 || g.Numbered > 100 {
		c.add("signature.numbered", "%d is not within 0..100", g.Numbered)
	}
	if g.Numbered > 0 && !strings.Contains(g.Header, "%d") {
		c.add("signature.header", "%q has no %%d for the number", g.Header)
	}
	switch s.Scheme {
	case "token":
		if s.Token != nil && (s.Token.OrQuery != "" && s.Token.Header == "" || s.Token.Number && (s.Token.Field == "" || strings.Contains(s.Token.Field, "*"))) {
			c.add("token", "or_query goes with header, number with one field")
		}
		if s.Token == nil || (s.Token.Header == "" && s.Token.Query == "" && s.Token.Field == "") {
			c.add("token", "say where the token stands: one of header, query, field")
		}
	case "standard_webhooks":
		if len(s.Prefixes) == 0 {
			c.add("prefixes", "missing: the header prefixes (webhook, svix)")
		}
	}
}

func (c *schemeCheck) timestamp() {
	s := c.s
	if s.Tolerance < 0 {
		c.add("tolerance", "%s is negative", s.Tolerance)
	}
	if s.ID != nil && s.ID.Header == "" {
		c.add("id.header", "missing")
	}
	t := s.Timestamp
	if t == nil {
		if s.Tolerance > 0 && s.Scheme != "standard_webhooks" && !IsOwnScheme(s.Scheme) {
			c.add("tolerance", "there is no timestamp to hold it against")
		}
		return
	}
	c.oneOf("timestamp.unit", t.Unit, unitNames, true)
	places := 0
	for _, p := range []string{t.Header, t.Key, t.JSON, t.Form, t.Query} {
		if p != "" {
			places++
		}
	}
	if t.First {
		places++
		if s.Signature.Format != "csv" {
			c.add("timestamp.first", "needs signature.format: csv")
		}
	}
	if places != 1 {
		c.add("timestamp", "say where it stands: one of header, key, first, json, form, query")
	}
	if t.Key != "" && s.Signature.Format != "list" {
		c.add("timestamp.key", "needs signature.format: list")
	}
}

func (c *schemeCheck) credentials() {
	seen, keys := map[string]bool{}, false
	for i, cr := range c.s.Credentials {
		at := fmt.Sprintf("credentials[%d]", i)
		if cr.Name == "" || seen[cr.Name] {
			c.add(at+".name", "%q is empty or there twice", cr.Name)
		}
		seen[cr.Name] = true
		c.oneOf(at+".role", cr.Role, roleNames, true)
		c.oneOf(at+".absent", cr.Absent, []string{"refuse", "allow"}, false)
		if cr.Role == "merchant" && cr.Field == "" {
			c.add(at+".field", "missing: the field that names the merchant")
		}
		keys = keys || cr.Role == "key" || cr.Role == "public_key" || cr.Role == "password"
	}
	if len(c.s.Credentials) > 0 && !keys && c.s.Scheme != "none" {
		c.add("credentials", "none of them has the role key, public_key or password, so nothing could verify")
	}
	for name := range c.s.Settings {
		c.oneOf("settings."+name, name, settingNames, true)
	}
}

func (c *schemeCheck) answers() {
	for i := range c.s.Older {
		o := c.s.Older[i]
		at := fmt.Sprintf("older[%d]", i)
		if c.s.Signature.Header == "" || o.Signature.Header == "" {
			c.add(at, "the signature of this scheme and of the older one must stand in headers: what is sent chooses")
		}
		if len(o.Older)+len(o.Credentials)+len(o.Settings)+len(o.Challenge) > 0 {
			c.add(at, "credentials, settings, challenges and older schemes belong to the definition")
		}
		o.Credentials = c.s.Credentials
		for _, err := range o.Validate() {
			var e *SchemeError
			if errors.As(err, &e) {
				c.add(at+"."+e.Path, "%s", e.Message)
			}
		}
	}
	for i, ch := range c.s.Challenge {
		at := fmt.Sprintf("challenge[%d]", i)
		c.oneOf(at+".method", ch.Method, []string{"GET", "POST", "HEAD", "OPTIONS", "PUT"}, true)
		if len(ch.Query)+len(ch.JSON)+len(ch.Header)+len(ch.Body) == 0 && ch.Method != "HEAD" && ch.Method != "OPTIONS" && ch.Echo == nil {
			c.add(at, "matches every %s: name a query, json or header value", ch.Method)
		}
		if ch.Token != nil && !c.hasRole("verify_token") {
			c.add(at+".token", "no credential has the role verify_token")
		}
		if len(ch.Without) > 0 && len(ch.JSON) == 0 {
			c.add(at+".without", "needs json: a body that is no JSON is without everything")
		}
		c.capture(at+".capture", ch)
		c.oneOf(at+".reply.charset", ch.Reply.Charset, []string{"token", "printable"}, false)
		if _, err := regexp.Compile(ch.Body); err != nil {
			c.add(at+".body", "%v", err)
		}
		c.oneOf(at+".builder", ch.Builder, ChallengeBuilders, false)
		for name, text := range ch.Reply.Headers {
			if strings.ContainsAny(name+text, "\r\n") {
				c.add(at+".reply.headers", "%q holds a line break", name)
			}
		}
		if m := ch.Reply.MAC; m != nil {
			c.oneOf(at+".reply.mac.encoding", m.Encoding, encodingNames, true)
			if m.JSON == "" || ch.Echo == nil || c.s.Scheme != "hmac" || ch.Reply.Charset != "" {
				c.add(at+".reply.mac", "needs json, an echo of charset token, and scheme hmac")
			}
			if !ch.Signed && (c.s.Signed != "{body}" || c.s.StrictJSON) {
				c.add(at+".reply.mac", "would sign a stranger's deliveries: an unsigned handshake is answered with a MAC only where signed is {body} (without strict_json), and such a body is refused then")
			}
		}
		if ch.Reply.Max < 0 || ch.Reply.Max > 4096 {
			c.add(at+".reply.max", "%d is not within 0..4096", ch.Reply.Max)
		}
	}
	for _, a := range []struct {
		path string
		a    *Answer
		low  int
		high int
	}{{"ack", c.s.Ack, 200, 299}, {"refusal", c.s.Refusal, 400, 499}} {
		if a.a == nil {
			continue
		}
		if a.a.Status != 0 && (a.a.Status < a.low || a.a.Status > a.high) {
			c.add(a.path+".status", "%d is not within %d..%d", a.a.Status, a.low, a.high)
		}
		if _, err := ParseTemplate(strings.ReplaceAll(a.a.Body, "{", "{form:")); a.a.Fields && err != nil {
			c.add(a.path+".body", "%v", err)
		}
		c.oneOf(a.path+".builder", a.a.Builder, AckBuilders, false)
	}
}

// capture: the one credential that a handshake may deliver is the scheme's only secret, of
// a scheme whose key is that text; and the provider needs a source that has none yet.
func (c *schemeCheck) capture(at string, ch Challenge) {
	k := ch.Capture
	if k == nil {
		return
	}
	if c.s.Scheme != "hmac" || c.s.Key != "" && c.s.Key != "utf8" || ch.Signed {
		c.add(at, "needs scheme hmac with a key of utf8, and a handshake that is not signed")
	}
	if k.Query == "" && k.JSON == "" && k.Header == "" {
		c.add(at, "say where the secret stands: one of query, json, header")
	}
	keys, named := 0, false
	for _, cr := range c.s.EffectiveCredentials() {
		if cr.Role == "key" {
			keys++
			named = named || cr.Name == k.Credential && cr.Optional
		}
	}
	if keys != 1 || !named {
		c.add(at+".credential", "%q is not the scheme's only credential with the role key, and optional", k.Credential)
	}
	if got := c.s.Captures(); got != k.Credential {
		c.add(at+".credential", "an earlier challenge captures %q", got)
	}
}

func (c *schemeCheck) hasRole(role string) bool {
	for _, cr := range c.s.EffectiveCredentials() {
		if cr.Role == role {
			return true
		}
	}
	return false
}

// TemplatePiece is one piece of a signed template: a literal (Kind "") or a value.
type TemplatePiece struct {
	Kind string // "", body, ts, id, url, method, path, query, key, all, h, q, json, form, php_serialize, json_sorted, base64_without, own
	Arg  string // the literal, or the name after the colon
}

// ParseTemplate splits a template such as "v0:{ts}:{body}".
func ParseTemplate(t string) ([]TemplatePiece, error) {
	var out []TemplatePiece
	for t != "" {
		i := strings.IndexByte(t, '{')
		if i != 0 {
			if i < 0 {
				i = len(t)
			}
			out = append(out, TemplatePiece{Arg: t[:i]})
			t = t[i:]
			continue
		}
		end := strings.IndexByte(t, '}')
		if end < 0 {
			return nil, fmt.Errorf("%q has no closing brace", t)
		}
		kind, arg, hasArg := strings.Cut(t[1:end], ":")
		switch kind {
		case "body", "ts", "id", "url", "method", "path", "query", "php_serialize", "json_sorted", "key", "all":
			if hasArg {
				return nil, fmt.Errorf("{%s} takes no name", kind)
			}
		case "h", "q", "json", "form", "base64_without", "own":
			if arg == "" {
				return nil, fmt.Errorf("{%s:...} needs a name", kind)
			}
		default:
			return nil, fmt.Errorf("{%s} is not a piece of a template (body, ts, id, url, method, path, query, h:Name, q:name, json:path, form:name, php_serialize, json_sorted, key, all, base64_without:name, own:name)%s", kind,
				guess(kind, []string{"body", "ts", "id", "url", "method", "path", "query", "php_serialize", "json_sorted", "key", "all", "base64_without", "own"}))
		}
		out = append(out, TemplatePiece{Kind: kind, Arg: arg})
		t = t[end+1:]
	}
	return out, nil
}

// KnownCurrency says whether code is an ISO 4217 code, in upper case.
func KnownCurrency(code string) bool {
	if len(code) != 3 || strings.ToUpper(code) != code {
		return false
	}
	_, ok := currencyExponent(code)
	return ok
}

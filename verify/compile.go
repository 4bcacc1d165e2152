package verify

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"penstock/provider"
)

// maxKeys bounds the values of one credential: each costs a computation per delivery.
const maxKeys = 16

// ConfigError is a source whose credentials or settings cannot verify anything. One of
// Credential and Setting is set. Its text never holds a secret.
type ConfigError struct {
	Provider   string
	Credential string
	Setting    string
	Err        error
}

// Error names the credential or the setting.
func (e *ConfigError) Error() string {
	if e.Setting != "" {
		return fmt.Sprintf("%s: setting %s: %v", e.Provider, e.Setting, e.Err)
	}
	return fmt.Sprintf("%s: credential %s %v", e.Provider, e.Credential, e.Err)
}

// Unwrap gives the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// New compiles a definition with a source's credentials. Errors are *ConfigError.
func New(def *provider.Definition, creds provider.Credentials, opts Options) (*Verifier, error) {
	s, err := applySettings(def.Name, def.Scheme, opts.Settings)
	if err != nil {
		return nil, err
	}
	if opts.Tolerance != nil {
		s.Tolerance = *opts.Tolerance
	}
	v, err := newVerifier(def.Name, s, creds, opts)
	if err != nil {
		return nil, err
	}
	if word, ok := opts.Settings["min_algorithm"]; ok {
		if v.minAlg, ok = algorithmNamed(&s, word); !ok {
			return nil, &ConfigError{Provider: def.Name, Setting: "min_algorithm", Err: fmt.Errorf("%q is no algorithm of this provider", word)}
		}
	}
	v.sealed = def.Decrypt
	v.url = opts.Settings["notification_url"]
	for _, o := range v.older {
		o.url = v.url
	}
	v.asks = slices.DeleteFunc(def.ChallengeMethods(), func(m string) bool {
		return slices.Contains(def.HTTPMethods, m) || len(def.HTTPMethods) == 0 && m == "POST"
	})
	for _, rd := range def.Document {
		v.plainField = v.plainField || rd.Form != "" && rd.As == "json"
	}
	if own, ok := v.own.(ownSettings); ok {
		if err := own.configure(opts.Settings); err != nil {
			return nil, err
		}
	}
	if opts.Settings["legacy_sha1"] == "true" {
		v.legacy, err = legacyVerifier(def.Name, s, creds)
	}
	return v, err
}

// applySettings gives the scheme as this source wants it.
func applySettings(name string, s provider.Scheme, settings map[string]string) (provider.Scheme, error) {
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		value := settings[key]
		fail := func(format string, args ...any) (provider.Scheme, error) {
			return s, &ConfigError{Provider: name, Setting: key, Err: fmt.Errorf(format, args...)}
		}
		allowed, ok := s.Settings[key]
		if !ok {
			return fail("is not a setting of this provider (it has: %s)", strings.Join(slices.Sorted(maps.Keys(s.Settings)), ", "))
		}
		if len(allowed) > 0 && key != "min_algorithm" && !slices.Contains(allowed, value) {
			return fail("%q is not one of %s", value, strings.Join(allowed, ", "))
		}
		switch key {
		case "algorithm":
			s.Algorithm = value
		case "separator":
			s.Separator = value
		case "key_position":
			s.KeyPosition = value
		case "encoding":
			s.Signature.Encoding = value
		case "signature_field":
			s.Signature.Field = value
		case "body":
			s.Body = value
		case "livemode":
			if value == "false" && s.Signature.TestKey != "" {
				s.Signature.Key = s.Signature.TestKey
			}
		case "required_signed":
			s.RequiredSigned = splitList(value)
		case "fields":
			s.Fields = fieldsNamed(s.Fields, splitList(value))
		}
	}
	if errs := s.Validate(); len(errs) > 0 {
		setting := "scheme"
		var at *provider.SchemeError
		if errors.As(errs[0], &at) {
			setting, _, _ = strings.Cut(at.Path, "[")
		}
		return s, &ConfigError{Provider: name, Setting: setting, Err: errs[0]}
	}
	return s, nil
}

// algorithmNamed reads an algorithm by our name or by the provider's word for it.
func algorithmNamed(s *provider.Scheme, word string) (algorithm, bool) {
	if a, ok := parseAlgorithm(word); ok && a != algNone {
		return a, true
	}
	a, ok := parseAlgorithm(s.Algorithms[word])
	return a, ok && a != algNone
}

func splitList(s string) []string {
	var out []string
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// fieldsNamed keeps what the definition says of a field that is named again.
func fieldsNamed(old []provider.SignedField, names []string) []provider.SignedField {
	var out []provider.SignedField
	for _, n := range names {
		f := provider.SignedField{Path: n}
		for _, o := range old {
			if o.Path == n {
				f = o
			}
		}
		out = append(out, f)
	}
	return out
}

func newVerifier(name string, s provider.Scheme, creds provider.Credentials, opts Options) (*Verifier, error) {
	v := &Verifier{
		name: name, s: &s, source: opts.Keys, settings: opts.Settings, pools: &pools{}, kind: primitiveOf(s.Scheme), tolerance: s.Tolerance,
		separator: []byte(s.Separator), variants: 1, sig: newSigReader(s.Signature), keyInside: s.KeyInside(),
		b64: base64.StdEncoding.Strict(), b64url: base64.RawURLEncoding.Strict(),
	}
	v.alg, _ = parseAlgorithm(s.Algorithm)
	if v.kind == primEd25519 {
		v.alg = algSHA512
	}
	if v.kind == primStandard {
		v.alg = algSHA256
	}
	for _, word := range slices.Sorted(maps.Keys(s.Algorithms)) {
		a, _ := parseAlgorithm(s.Algorithms[word])
		v.words = append(v.words, algorithmWord{word, a})
	}
	if err := v.compileMessage(); err != nil {
		return nil, err
	}
	if err := v.compileKeys(creds); err != nil {
		return nil, err
	}
	v.compilePublished()
	v.compileAnswers()
	if err := v.compileOlder(creds); err != nil {
		return nil, err
	}
	return v, v.compileOwn()
}

func primitiveOf(scheme string) primitive {
	switch scheme {
	case "hmac":
		return primHMAC
	case "hash", "hash_concat":
		return primHash
	case "rsa":
		return primRSA
	case "ecdsa":
		return primECDSA
	case "ed25519":
		return primEd25519
	case "standard_webhooks":
		return primStandard
	case "token":
		return primToken
	case "basic":
		return primBasic
	}
	if provider.IsOwnScheme(scheme) {
		return primOwn
	}
	return primNone
}

func (v *Verifier) compileMessage() error {
	pieces, err := provider.ParseTemplate(v.s.Signed)
	if err != nil {
		return &ConfigError{Provider: v.name, Setting: "signed", Err: err}
	}
	for _, p := range pieces {
		if p.Kind == "own" {
			v.variants = max(v.variants, ownSpellings[p.Arg])
		}
		if p.Kind == "json_sorted" {
			v.variants = 2
		}
		v.pieces = append(v.pieces, piece{kind: p.Kind, name: p.Arg, text: []byte(p.Arg)})
	}
	for _, f := range v.s.Fields {
		v.fields = append(v.fields, field{f: f, syntax: v.s.FieldSyntax(f)})
		v.variants = max(v.variants, len(f.Forms))
	}
	if t := v.s.Timestamp; t != nil {
		v.ts = &tsReader{t: *t}
		if t.Header != "" {
			v.ts.headers = append([]string{t.Header}, t.Alternatives...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.s.Require)) {
		v.require = append(v.require, requirement{name, v.s.Require[name]})
	}
	for _, p := range v.s.Prefixes {
		v.trios = append(v.trios, trio{p + "-id", p + "-timestamp", p + "-signature"})
	}
	if v.s.Token != nil {
		v.token = newTokenReader(*v.s.Token)
	}
	return nil
}

func (v *Verifier) compileKeys(creds provider.Credentials) error {
	specs := v.s.EffectiveCredentials()
	groups := map[string]bool{}
	for name := range creds {
		if !slices.ContainsFunc(specs, func(c provider.Credential) bool { return c.Name == name }) {
			return v.fail(name, errors.New("is not one of this provider"))
		}
	}
	for _, c := range specs {
		values := creds[c.Name]
		if c.AnyOf != "" {
			groups[c.AnyOf] = groups[c.AnyOf] || len(values) > 0
		}
		if len(values) == 0 {
			if !c.Optional && c.AnyOf == "" && v.kind != primNone {
				return v.fail(c.Name, errors.New("is missing"))
			}
			continue
		}
		if len(values) > maxKeys {
			return v.fail(c.Name, fmt.Errorf("has %d values, at most %d", len(values), maxKeys))
		}
		for _, value := range values {
			if slices.Contains(v.s.RefusedCredentials, value) {
				return v.fail(c.Name, errors.New("is a published test value that anybody can sign with"))
			}
			if err := v.addCredential(c, value); err != nil {
				return v.fail(c.Name, err)
			}
		}
	}
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		if !groups[g] {
			return v.fail(groupNames(specs, g), errors.New("is missing: one of them at least"))
		}
	}
	return nil
}

func groupNames(specs []provider.Credential, group string) string {
	var names []string
	for _, c := range specs {
		if c.AnyOf == group {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, " or ")
}

func (v *Verifier) fail(credential string, err error) error {
	return &ConfigError{Provider: v.name, Credential: credential, Err: err}
}

func (v *Verifier) addCredential(c provider.Credential, value string) error {
	scheme := v.s.Scheme
	switch c.Role {
	case "key":
		kind := v.s.Key
		if v.kind == primBasic {
			return errors.New("has the role key, which scheme basic does not use (username, password)")
		}
		if v.kind == primStandard && kind == "" {
			kind = "whsec"
		}
		id := ""
		if v.s.KeyID != nil {
			var ok bool
			if id, value, ok = strings.Cut(value, ":"); !ok || id == "" {
				return errors.New("is not written id:secret, the key's id and the key")
			}
		}
		k, err := newSecretKey(c.Name, value, scheme, kind)
		if err != nil {
			return err
		}
		k.id = id
		v.prepareKey(&k)
		v.keys = append(v.keys, k)
	case "part":
		if strings.TrimSpace(value) == "" {
			return errors.New("is empty")
		}
		if _, ok := v.named[c.Name]; ok {
			return errors.New("has several values, which a signed text cannot have")
		}
		if v.named == nil {
			v.named = map[string][]byte{}
		}
		v.named[c.Name] = []byte(value)
	case "public_key":
		kind := v.s.Key
		if v.kind == primStandard {
			kind = "whpk"
		}
		if kind == "jwks" || v.kind == primOwn && strings.HasPrefix(strings.TrimSpace(value), "{") {
			set, err := newJWKS(c.Name, value, v.kind, scheme)
			v.keys = append(v.keys, set...)
			return err
		}
		id := ""
		if v.s.KeyID != nil {
			var err error
			if id, value, err = namedPublicKey(value); err != nil {
				return err
			}
		}
		k, err := newPublicKey(c.Name, value, kind, v.kind, scheme)
		if err != nil {
			return err
		}
		k.id = id
		v.keys = append(v.keys, k)
	case "username", "password", "verify_token":
		k, err := newSecretKey(c.Name, value, scheme, "utf8")
		if err != nil {
			return err
		}
		switch c.Role {
		case "username":
			v.usernames = append(v.usernames, k)
		case "password":
			v.passwords = append(v.passwords, k)
		default:
			v.tokens = append(v.tokens, k)
		}
	case "merchant":
		return v.addMerchant(c, value)
	case "answer_key":
		k, err := newSigningKey(value)
		if err != nil {
			return err
		}
		if v.answer == nil { // the first one signs
			v.answer = k
		}
	case "reading_key":
		if strings.TrimSpace(value) == "" {
			return errors.New("is empty")
		}
		if n := len(value); n != 16 && n != 24 && n != 32 && v.kind != primOwn { // own code knows its own
			return fmt.Errorf("has %d characters: a key of AES has 32 (or 16, 24)", n)
		}
		if v.readingKey == "" {
			v.readingKey = value
		}
	case "signing_key":
		k, err := newSigningKey(value)
		if err != nil {
			return err
		}
		v.signing = k
	}
	return nil
}

func (v *Verifier) addMerchant(c provider.Credential, value string) error {
	if strings.TrimSpace(value) == "" {
		return errors.New("is empty")
	}
	for i := range v.merchants {
		if v.merchants[i].c.Name == c.Name {
			v.merchants[i].values = append(v.merchants[i].values, value)
			return nil
		}
	}
	v.merchants = append(v.merchants, merchant{c: c, values: []string{value}})
	return nil
}

// prepareKey readies the HMAC states of every algorithm that may be asked for.
func (v *Verifier) prepareKey(k *key) {
	if v.kind != primHMAC && v.kind != primStandard {
		return
	}
	if v.alg != algNone {
		k.prepare(v.alg)
	}
	for _, w := range v.words {
		k.prepare(w.alg)
	}
}

// Warnings are weaknesses of this source that its config could close, for the log at
// start and for `penstock check`.
func (v *Verifier) Warnings() []string {
	var out []string
	if v.kind == primNone {
		out = append(out, v.name+": nothing is verified (scheme none): anybody who knows the URL can send events")
	}
	if v.kind == primHash && v.s.KeyPosition == "prefix" {
		out = append(out, v.name+": a plain hash with the key in front is open to length extension (key_position: prefix)")
	}
	if len(v.separator) > 0 {
		return out
	}
	for i := 1; i < len(v.fields); i++ {
		if v.fields[i].syntax == "amount" && v.fields[i-1].syntax == "text" {
			out = append(out, fmt.Sprintf("%s: fields are joined without a separator, and nothing pins %s: a digit can slide between it and %s under the same hash (a merchant credential closes it)",
				v.name, v.fields[i-1].f.Path, v.fields[i].f.Path))
		}
		if v.s.FieldSyntax(v.fields[i-1].f) == "merchant" && v.fields[i].syntax == "amount" && len(v.merchants) == 0 {
			out = append(out, fmt.Sprintf("%s: give %s: without it and without a separator a digit can slide between it and %s under the same hash", v.name, v.fields[i-1].f.Path, v.fields[i].f.Path))
		}
	}
	return out
}

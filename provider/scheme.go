package provider

import (
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Scheme is the first half of a definition: how a delivery proves who sent it, which
// credentials that needs, and what is answered. All of it is data; package verify
// compiles it once per source. The keys stand at the top level of a definition.
type Scheme struct {
	// Scheme names the primitive: hmac, hash, hash_concat, rsa, ecdsa, ed25519,
	// standard_webhooks, token, basic, or none (which must be spelled out).
	Scheme string `yaml:"scheme"`
	// Algorithm is md5, sha1, sha256, sha384, sha512 or sha3-256. hmac and the hashes
	// take any of them, rsa and ecdsa sha1, sha256, sha384 and sha512.
	Algorithm string `yaml:"algorithm,omitempty"`
	// Algorithms lets the request choose among these by the signature's part named
	// Signature.AlgorithmKey: the provider's word for it, then ours.
	Algorithms map[string]string `yaml:"algorithms,omitempty"`
	// Key says what the secret's text is: utf8 (as it is), base64, hex, nfkd, whsec
	// (base64 after an optional "whsec_") or whsec_or_text (base64 only after it).
	// For public keys: pem, base64_pem, hex, base64, whpk or jwks (a JSON Web Key Set).
	Key string `yaml:"key,omitempty"`
	// KeyPosition is where a plain hash takes the key: suffix, prefix or both.
	KeyPosition string `yaml:"key_position,omitempty"`

	// Signed is the template of the signed bytes for all but field schemes. Pieces:
	// {body} {ts} {id} {url} {method} {path} {query} {h:Name} {q:name} {json:path}
	// {form:name} {php_serialize} {key} (the secret itself) {all} (see All)
	// {json_sorted} (the document as JSON.stringify writes it with its names sorted)
	// {base64_without:name} (base64 of the JSON text with that member cut out)
	// {own:name} (what package verify has code of its own for, one of OwnPieces);
	// everything else stands for itself.
	Signed string     `yaml:"signed,omitempty"`
	All    *AllFields `yaml:"all,omitempty"`
	// Fields are the signed fields in their order, joined by Separator, taken from
	// Body: json, form, query, xml, auto (JSON when it starts with a brace, else a form) or
	// any (auto, and the query where the body is empty).
	Fields    []SignedField `yaml:"fields,omitempty"`
	Separator string        `yaml:"separator,omitempty"`
	Body      string        `yaml:"body,omitempty"`
	// JSONInForm also reads a form whose only name or value is the JSON document.
	JSONInForm bool `yaml:"json_in_form,omitempty"`
	// JSONField is the field of a form, urlencoded or multipart, that holds the JSON document.
	JSONField string `yaml:"json_field,omitempty"`
	// StrictJSON refuses a body that is neither empty nor JSON after its hash was right: a
	// plain hash with the key in front can be continued, but never by more JSON.
	StrictJSON bool `yaml:"strict_json,omitempty"`
	// RequiredSigned must all be among Fields: what the definition trusts is proved.
	RequiredSigned []string `yaml:"required_signed,omitempty"`
	// SeparatorInValues allows a value that contains the separator; only for field lists
	// whose syntax pins every boundary anyway.
	SeparatorInValues bool `yaml:"separator_in_values,omitempty"`
	// Each names the list of a JSON document whose every element carries fields and
	// signature of its own (Adyen); fields and merchants are then paths in the element. All
	// of them must hold, and there must be one.
	Each string `yaml:"each,omitempty"`
	// KeyID is the header that says which key signed; the credential's values are then
	// written id:secret or id:public key. Those of a key set bring their kid, a certificate
	// alone its serial number.
	KeyID *KeyID `yaml:"key_id,omitempty"`

	Signature Signature  `yaml:"signature,omitempty"`
	Timestamp *Timestamp `yaml:"timestamp,omitempty"`
	// Tolerance bounds the timestamp's distance from our clock, both ways; 0 = no check.
	Tolerance time.Duration `yaml:"tolerance,omitempty"`
	ID        *MessageID    `yaml:"id,omitempty"`
	// Headers of Standard Webhooks: the prefixes of the trio (webhook, svix).
	Prefixes []string `yaml:"prefixes,omitempty"`
	// Require names headers that must be there once; a value fixes it exactly.
	Require map[string]string `yaml:"require,omitempty"`
	// RefusedCredentials are values that are public knowledge (a documented test secret).
	RefusedCredentials []string `yaml:"refused_credentials,omitempty"`
	// Older are schemes of the same sender from before this one. One is asked only where
	// no header of a newer one is sent at all and its own Require holds; credentials and
	// settings are this scheme's.
	Older []Scheme `yaml:"older,omitempty"`

	Token *Token `yaml:"token,omitempty"`
	JWT   *JWT   `yaml:"jwt,omitempty"`
	// Published is what is fetched from the provider to verify with.
	Published   *Published   `yaml:"published,omitempty"`
	Credentials []Credential `yaml:"credentials,omitempty"`
	// Settings are what a source may set differently: name and allowed values (none
	// listed = any value that the engine can read).
	Settings map[string][]string `yaml:"settings,omitempty"`

	Challenge []Challenge `yaml:"challenge,omitempty"`
	Ack       *Answer     `yaml:"ack,omitempty"`
	// Refusal is the answer that the provider prescribes for a failed verification
	// (GoCardless: 498); nil = the edge's own 401.
	Refusal *Answer `yaml:"refusal,omitempty"`
}

// Signature says where the signature stands and how it is written.
type Signature struct {
	Header string `yaml:"header,omitempty"`
	// Alternatives are other headers that may carry it. Several present: what Several
	// says: equal (all the same, else refused; default), first, any (all are tried).
	Alternatives []string `yaml:"alternatives,omitempty"`
	Several      string   `yaml:"several,omitempty"`
	// Numbered is the highest n of a header pattern such as X-DocuSign-Signature-%d.
	Numbered int    `yaml:"numbered,omitempty"`
	Field    string `yaml:"field,omitempty"` // in the body: JSON path or form name
	Query    string `yaml:"query,omitempty"`
	Prefix   string `yaml:"prefix,omitempty"` // "sha256="
	// Bare also takes a signature without Prefix.
	Bare bool `yaml:"bare,omitempty"`
	// Format is plain, list ("t=1,v1=ab": Separator, Key), words ("v1,ab v1,cd":
	// space separated, Key is the tag before the comma), csv (bare, comma separated) or
	// tagged ("sha256=ab": a word of Algorithms in front).
	Format    string `yaml:"format,omitempty"`
	Separator string `yaml:"separator,omitempty"` // of a list; default ","
	Group     string `yaml:"group,omitempty"`     // between groups of pairs (Persona: " ")
	Key       string `yaml:"key,omitempty"`       // label of the signatures in it
	// TestKey is the label that a source with the setting livemode: "false" reads instead.
	TestKey string `yaml:"test_key,omitempty"`
	// AlgorithmKey labels the part that names the algorithm (PayU).
	AlgorithmKey string `yaml:"algorithm_key,omitempty"`
	// One allows a single signature only; otherwise up to 8 are tried, any may match.
	One bool `yaml:"one,omitempty"`
	// Encoding is hex (either case), hex_lower, HEX, base64 or base64url, all strict.
	Encoding string `yaml:"encoding,omitempty"`
}

// Timestamp says where the signed time stands. Unit: s, ms, s_or_ms, rfc3339, http_date.
type Timestamp struct {
	Header       string   `yaml:"header,omitempty"`
	Alternatives []string `yaml:"alternatives,omitempty"`
	Key          string   `yaml:"key,omitempty"` // label inside the signature list
	JSON         string   `yaml:"json,omitempty"`
	Form         string   `yaml:"form,omitempty"`
	Query        string   `yaml:"query,omitempty"`
	// First: it is the first of the comma separated parts that hold the signatures (csv).
	First bool   `yaml:"first,omitempty"`
	Unit  string `yaml:"unit,omitempty"`
	// PastOnly holds the tolerance against the past alone, as the provider's own code does.
	PastOnly bool `yaml:"past_only,omitempty"`
	// Exclusive: a time at exactly the tolerance's distance is outside (WeChat Pay).
	Exclusive bool `yaml:"exclusive,omitempty"`
}

// KeyID is the header that names the key.
type KeyID struct {
	Header string `yaml:"header"`
}

// MessageID is a header whose value is part of the signed bytes; Forbid lists bytes it
// must not contain because they separate it from its neighbour.
type MessageID struct {
	Header string `yaml:"header"`
	Forbid string `yaml:"forbid,omitempty"`
}

// SignedField is one field of a field list. In YAML either its path alone or a mapping.
type SignedField struct {
	// Path is the field's place; {key} is the secret itself, {name} the value of the
	// credential of that name, which has the role part.
	Path string `yaml:"path"`
	// Or is the place to look at when Path is absent.
	Or string `yaml:"or,omitempty"`
	// Label is text in front of the value ("amount=").
	Label string `yaml:"label,omitempty"`
	// Syntax is text, amount, currency, merchant, digits, bool, word (letters, digits, "-",
	// "_", ".") or datetime (begins like 2006-01-02T15:04:05). An empty value, where it is
	// allowed, fits digits, bool and word. Unset, it follows from the name:
	// a last part that contains "amount" or "currency", or the field of a merchant
	// credential; everything else is text.
	Syntax string `yaml:"syntax,omitempty"`
	// Absent and Null are what stands for a field that is not there or null: refuse
	// (default), empty, skip (it is left out together with its separator), or a literal
	// such as "0".
	Absent string `yaml:"if_absent,omitempty"`
	Null   string `yaml:"if_null,omitempty"`
	// Forms are the spellings of a number that the sender may have signed, tried in
	// order: raw (as it stands), trimmed (250.0 -> 250), two_decimals (250 -> 250.00).
	Forms []string `yaml:"forms,omitempty"`
}

// UnmarshalYAML reads "amount" as well as {path: amount, forms: [raw, trimmed]}.
func (f *SignedField) UnmarshalYAML(node ast.Node) error {
	type plain SignedField
	if n, ok := node.(ast.ScalarNode); ok {
		*f = SignedField{}
		return yaml.NodeToValue(n, &f.Path)
	}
	return yaml.NodeToValue(node, (*plain)(f), yaml.Strict())
}

// MarshalYAML writes the short form where it says everything.
func (f SignedField) MarshalYAML() (any, error) {
	if f.Syntax == "" && f.Absent == "" && f.Null == "" && len(f.Forms) == 0 && f.Or == "" && f.Label == "" {
		return f.Path, nil
	}
	type plain SignedField
	return plain(f), nil
}

// Token is where a shared token stands, for scheme token.
type Token struct {
	Header string `yaml:"header,omitempty"`
	Query  string `yaml:"query,omitempty"`
	Field  string `yaml:"field,omitempty"`  // of the JSON body; "value.*.clientState" = every element
	Prefix string `yaml:"prefix,omitempty"` // "Bearer "
	// OrQuery is the query parameter that carries it where Header is not sent.
	OrQuery string `yaml:"or_query,omitempty"`
	// Number: Field is a JSON number; the same digits as text are refused.
	Number bool `yaml:"number,omitempty"`
}

// Credential is one credential that the scheme needs. Several values may always be given.
type Credential struct {
	Name string `yaml:"name"`
	// Role is key (a shared secret), public_key, username, password, merchant (compared
	// with Field), reading_key (opens what is sealed in a delivery, see Definition.Decrypt), answer_key (a private key that signs answers), part (a value that is signed but not sent), verify_token (of a challenge), info (kept for the operator) or signing_key (a private key, used by
	// dev and tests only: it signs, it never verifies).
	Role     string `yaml:"role"`
	Optional bool   `yaml:"optional,omitempty"`
	AnyOf    string `yaml:"any_of,omitempty"` // at least one of the group
	About    string `yaml:"about,omitempty"`
	// Open: it names somebody and is no secret, although nothing else is asked for.
	Open bool `yaml:"open,omitempty"`
	// Field is the merchant's field, header:Name or claim:name (of a JWT); with Inside it stands in the base64 JSON document
	// of that form field. Absent: refuse (default) or allow.
	Field  string `yaml:"field,omitempty"`
	Inside string `yaml:"inside,omitempty"`
	Absent string `yaml:"absent,omitempty"`
	// Sample is the shape for made-up development values, "#" a hex digit, "!" a
	// decimal one: "whsec_####".
	Sample string `yaml:"sample,omitempty"`
}

// Challenge is one handshake. All of Match must hold; Token is compared in constant time;
// Echo is a value of the request, limited in length and characters.
type Challenge struct {
	Method string            `yaml:"method"`
	Query  map[string]string `yaml:"query,omitempty"` // name -> value; "" = present
	JSON   map[string]string `yaml:"json,omitempty"`
	Header map[string]string `yaml:"header,omitempty"`
	// Without are JSON paths that must not be there (Discord: a PING has no event).
	Without []string `yaml:"without,omitempty"`
	// Body is a regular expression that the whole body must match: "^$" is an empty one.
	Body string `yaml:"body,omitempty"`
	// Signed challenges are answered only after the signature holds.
	Signed bool        `yaml:"signed,omitempty"`
	Token  *FromWhere  `yaml:"token,omitempty"` // must equal a verify_token credential
	Echo   *FromWhere  `yaml:"echo,omitempty"`
	Reply  ReplyFormat `yaml:"reply,omitempty"`
	// Capture keeps a value of the handshake as a credential, once: what a source has
	// already is never replaced (Asana, Notion).
	Capture *Capture `yaml:"capture,omitempty"`
	// Refusal is the status when Token does not match (Meta: 403).
	Refusal int `yaml:"refusal,omitempty"`
	// Builder names code in verify that answers it, or says that it is no handshake after
	// all (feishu, whose handshake may be encrypted).
	Builder string `yaml:"builder,omitempty"`
}

// Capture is a credential that the provider delivers itself.
type Capture struct {
	Credential string `yaml:"credential"`
	FromWhere  `yaml:",inline"`
}

// Captures names the credential that a handshake of the scheme delivers, "" for none.
func (s *Scheme) Captures() string {
	for _, c := range s.Challenge {
		if c.Capture != nil {
			return c.Capture.Credential
		}
	}
	return ""
}

// FromWhere names one value of a request.
type FromWhere struct {
	Query  string `yaml:"query,omitempty"`
	JSON   string `yaml:"json,omitempty"`
	Header string `yaml:"header,omitempty"`
}

// ReplyFormat is how a challenge's value goes out: as text, as {"<json>": value}, in a
// header, or a fixed body.
type ReplyFormat struct {
	Status int    `yaml:"status,omitempty"`
	JSON   string `yaml:"json,omitempty"`
	Header string `yaml:"header,omitempty"`
	Body   string `yaml:"body,omitempty"`
	Max    int    `yaml:"max,omitempty"` // bytes of the echoed value; default 512
	// Charset of the echoed value: token (default) or printable (ASCII, as text only).
	Charset string `yaml:"charset,omitempty"`
	// ContentType of an answer that is no echoed text or JSON.
	ContentType string `yaml:"content_type,omitempty"`
	// MAC adds the echoed value's HMAC under the source's key as a member of a JSON answer.
	MAC *ReplyMAC `yaml:"mac,omitempty"`
	// Headers go out beside it: by name either fixed text, or "{h:Name|text}", the
	// request's header where it is a plain token, else the text.
	Headers map[string]string `yaml:"headers,omitempty"`
}

// ReplyMAC is the member of a JSON answer that proves that we hold the secret (X, Zoom).
type ReplyMAC struct {
	JSON     string `yaml:"json"`
	Prefix   string `yaml:"prefix,omitempty"`
	Encoding string `yaml:"encoding"`
}

// Answer is a fixed answer, or one that a named builder in verify computes (wayforpay).
type Answer struct {
	Status      int    `yaml:"status,omitempty"`
	ContentType string `yaml:"content_type,omitempty"`
	Body        string `yaml:"body,omitempty"`
	// Fields: {name} in Body stands for that signed field of the delivery, of letters,
	// digits and "-_." only.
	Fields  bool   `yaml:"fields,omitempty"`
	Builder string `yaml:"builder,omitempty"`
}

// Credentials are the values of a source, by the names of its provider's specs.
type Credentials map[string][]string

// CredentialSpec says which credential a definition needs.
type CredentialSpec struct {
	Name     string
	Secret   bool
	Required bool
	AnyOf    string // at least one credential of the group
	About    string
	Role     string
}

// CredentialSpecs lists the credentials of a scheme; where the definition names none,
// those that its scheme always needs.
func (s *Scheme) CredentialSpecs() []CredentialSpec {
	var out []CredentialSpec
	for _, c := range s.EffectiveCredentials() {
		out = append(out, CredentialSpec{
			Name: c.Name, Secret: secretRole(c.Role) && !c.Open, Required: !c.Optional && c.AnyOf == "",
			AnyOf: c.AnyOf, About: c.About, Role: c.Role,
		})
	}
	return out
}

func secretRole(role string) bool {
	switch role {
	case "key", "password", "verify_token", "reading_key", "answer_key", "signing_key", "part":
		return true
	}
	return false
}

// EffectiveCredentials is Credentials, or the scheme's usual ones when there are none.
func (s *Scheme) EffectiveCredentials() []Credential {
	if len(s.Credentials) > 0 {
		return s.Credentials
	}
	signing := Credential{Name: "signing_key", Role: "signing_key", Optional: true, About: "private key, only to sign test deliveries"}
	switch s.Scheme {
	case "hmac", "hash":
		return []Credential{{Name: "secrets", Role: "key", About: "signing secrets; several while rotating"}}
	case "hash_concat":
		cs := []Credential{{Name: "private_key", Role: "key", About: "the key that is hashed with the fields"}}
		for _, f := range s.Fields {
			if f.Path == "merchant_id" {
				cs = append(cs, Credential{Name: "merchant_id", Role: "merchant", Field: "merchant_id", Optional: true, About: "refuse deliveries of any other merchant"})
			}
		}
		return cs
	case "rsa", "ecdsa", "ed25519":
		return []Credential{{Name: "public_keys", Role: "public_key", About: "the provider's public keys"}, signing}
	case "standard_webhooks":
		return []Credential{
			{Name: "secrets", Role: "key", AnyOf: "keys", About: "whsec_..."},
			{Name: "public_keys", Role: "public_key", AnyOf: "keys", About: "whpk_..."},
			signing,
		}
	case "token":
		return []Credential{{Name: "tokens", Role: "key", About: "the shared token; several while rotating"}}
	case "basic":
		return []Credential{
			{Name: "usernames", Role: "username", About: "user name of HTTP Basic authentication"},
			{Name: "passwords", Role: "password", About: "password of HTTP Basic authentication"},
		}
	}
	return nil
}

// ChallengeMethods are the methods that the scheme's challenges arrive with.
func (s *Scheme) ChallengeMethods() []string {
	var out []string
	for _, c := range s.Challenge {
		if !contains(out, c.Method) {
			out = append(out, c.Method)
		}
	}
	return out
}

// FieldSyntax is the syntax that a signed field must have.
func (s *Scheme) FieldSyntax(f SignedField) string {
	if f.Syntax != "" {
		return f.Syntax
	}
	for _, c := range s.EffectiveCredentials() {
		if c.Role == "merchant" && c.Inside == "" && c.Field == f.Path {
			return "merchant"
		}
	}
	last := strings.ToLower(f.Path[strings.LastIndexByte(f.Path, '.')+1:])
	switch {
	case strings.Contains(last, "currency"):
		return "currency"
	case strings.Contains(last, "amount"):
		return "amount"
	}
	return "text"
}

// SchemeError is one mistake in the scheme part. Path is the YAML path from the
// definition's root ("signature.encoding", "fields[2].syntax").
type SchemeError struct {
	Path    string
	Message string
}

// Error says where and what.
func (e *SchemeError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Message) }

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

package verify

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock/provider"
)

// vectorNames are the words that vectors use for a credential of ours, beside its own.
var vectorNames = map[string][]string{
	"client_ids":          {"client_id"},
	"subscription_ids":    {"subscription_id"},
	"api_keys":            {"api_key"},
	"encrypt_keys":        {"secret", "encrypt_key"},
	"verification_tokens": {"verification_token"},
	"secrets": {"secret", "signing_secrets", "signing_secret", "webhook_secret", "signing_token",
		"webhook_secrets", "shared_secrets", "secret_keys", "signature_keys", "client_secrets", "api_secrets", "secrets_b64"},
	"public_key":     {"public_key_pem"},
	"public_keys":    {"public_key", "public_key_pem", "public_key_hex", "public_key_b64", "public_key_b64_as_served", "jwks"},
	"secret_hashes":  {"secret_hash"},
	"platform_keys":  {"public_keys", "certs"},
	"hmac_keys":      {"hmac_key_hex"},
	"url_tokens":     {"secret_in_url"},
	"merchant_key":   {"key"},
	"tokens":         {"token", "secret"},
	"signing_tokens": {"signing_token"},
	"topic_arns":     {"topic_arn"},
	"client_keys":    {"client_key"},
	"usernames":      {"username", "user"},
	"passwords":      {"password"},
}

// vectorNotes are keys of secrets that say nothing which a source would be configured with.
var vectorNotes = []string{"scheme", "tolerance_s", "note", "header", "field"}

type mapped struct {
	creds provider.Credentials
	opts  Options
	url   string // as registered with the provider, where the case states it
}

// mapSecrets gives a vector's material the names that a source's config has. A key that
// has no place is an error: a vector must never pass because we looked away.
func mapSecrets(def *provider.Definition, c *Case) (mapped, error) {
	m := mapped{creds: provider.Credentials{}, opts: Options{Settings: map[string]string{}}}
	used := map[string]bool{}
	for _, n := range vectorNotes {
		used[n] = true
	}
	for _, spec := range def.CredentialSpecs() {
		for _, word := range append([]string{spec.Name}, vectorNames[spec.Name]...) {
			value, ok := c.Secrets[word]
			if !ok || used[word] {
				continue
			}
			used[word] = true
			list, err := texts(value)
			if err != nil {
				return m, fmt.Errorf("secrets.%s: %w", word, err)
			}
			m.creds[spec.Name] = append(m.creds[spec.Name], list...)
		}
	}
	if err := m.basic(def, c, used); err != nil {
		return m, err
	}
	if value, ok := c.Secrets["callback_url"].(string); ok && strings.Contains(def.Signed, "{url}") {
		m.url, used["callback_url"] = value, true
	}
	m.published(def, c, used)
	m.saas(def, c, used)
	m.expectFields(def, c, used)
	m.payments(def, c, used)
	if err := m.previous(def, c, used); err != nil {
		return m, err
	}
	for name := range def.Settings {
		value, ok := c.Secrets[name]
		if !ok || used[name] {
			continue
		}
		used[name] = true
		list, err := texts(value)
		if err != nil {
			return m, fmt.Errorf("secrets.%s: %w", name, err)
		}
		m.opts.Settings[name] = strings.Join(list, ",")
	}
	if mode, ok := c.Secrets["mode"].(string); ok && (mode == "signature") == (def.Scheme.Scheme != "token") {
		used["mode"] = true // it chose the definition
	}
	for _, word := range slices.Sorted(maps.Keys(c.Secrets)) {
		if !used[word] {
			return m, fmt.Errorf("secrets.%s has no place in the source's config", word)
		}
	}
	if err := m.tolerance(c); err != nil {
		return m, err
	}
	m.legacy(def, c)
	return m, nil
}

// saas: words of single providers. The URL as registered, tokens that are spent, and
// that a source checks the age although its scheme does not.
func (m *mapped) saas(def *provider.Definition, c *Case, used map[string]bool) {
	if value, ok := c.Secrets["url"].(string); ok && strings.Contains(def.Signed, "url") {
		m.url, used["url"] = value, true
	}
	if list, err := texts(c.Secrets["seen_tokens"]); err == nil && len(list) > 0 && def.Settings["used_tokens"] != nil {
		m.opts.Settings["used_tokens"], used["seen_tokens"] = strings.Join(list, ","), true
	}
	if check, ok := c.Secrets["check_age"].(bool); ok && def.Timestamp != nil {
		age := def.Tolerance
		if check {
			age = 5 * time.Minute
		}
		m.opts.Tolerance, used["check_age"] = &age, true
	}
}

// basic: "user:password" in one text, parted at the first colon (RFC 7617).
func (m *mapped) basic(def *provider.Definition, c *Case, used map[string]bool) error {
	value, ok := c.Secrets["secret"]
	if !ok || used["secret"] || def.Scheme.Scheme != "basic" {
		return nil
	}
	list, err := texts(value)
	if err != nil {
		return fmt.Errorf("secrets.secret: %w", err)
	}
	used["secret"] = true
	for _, text := range list {
		user, password, _ := strings.Cut(text, ":")
		m.creds["usernames"] = append(m.creds["usernames"], user)
		m.creds["passwords"] = append(m.creds["passwords"], password)
	}
	return nil
}

// previous are older values of the secret that the vector names: those of the first
// credential that verifies and has a value already.
func (m *mapped) previous(def *provider.Definition, c *Case, used map[string]bool) error {
	value, ok := c.Secrets["previous"]
	if !ok {
		return nil
	}
	list, err := texts(value)
	if err != nil {
		return fmt.Errorf("secrets.previous: %w", err)
	}
	for _, spec := range def.CredentialSpecs() {
		if role := spec.Role; (role == "key" || role == "public_key" || role == "password") && len(m.creds[spec.Name]) > 0 {
			m.creds[spec.Name] = append(m.creds[spec.Name], list...)
			used["previous"] = true
			return nil
		}
	}
	return nil
}

// tolerance: a number is the source's tolerance, null is no clock check, absent is the
// scheme's own.
func (m *mapped) tolerance(c *Case) error {
	value, ok := c.Secrets["tolerance_s"]
	if !ok {
		return nil
	}
	d := time.Duration(0)
	if n, isNumber := value.(json.Number); isNumber {
		s, err := n.Int64()
		if err != nil {
			return fmt.Errorf("secrets.tolerance_s: %w", err)
		}
		d = time.Duration(s) * time.Second
	} else if value != nil {
		return fmt.Errorf("secrets.tolerance_s: %v is no number", value)
	}
	m.opts.Tolerance = &d
	return nil
}

// legacy: google/go-github's own tests sign with the SHA-1 header alone, which a source
// takes only by its setting ("only if sha1 is allowed for the endpoint").
func (m *mapped) legacy(def *provider.Definition, c *Case) {
	if _, ok := def.Settings["legacy_sha1"]; ok && strings.Contains(c.Name+c.Origin, "go-github") {
		m.opts.Settings["legacy_sha1"] = "true"
	}
}

// expectFields are values that fields of the delivery must have: merchants of ours.
func (m *mapped) expectFields(def *provider.Definition, c *Case, used map[string]bool) {
	want, ok := c.Secrets["expect_fields"].(map[string]any)
	if !ok {
		return
	}
	placed := 0
	for _, cr := range def.EffectiveCredentials() {
		if value, ok := want[cr.Field].(string); ok && cr.Role == "merchant" {
			m.creds[cr.Name] = []string{value}
			placed++
		}
	}
	used["expect_fields"] = placed == len(want)
}

// keysByID writes {id: secret} as id:secret; nil where it is none.
func keysByID(m map[string]any) []string {
	out := []string{}
	for _, id := range slices.Sorted(maps.Keys(m)) {
		secret, ok := m[id].(string)
		if !ok {
			return nil
		}
		out = append(out, id+":"+secret)
	}
	return out
}

// texts reads a string, a number, a flag, a list of them, keys by their ids, or a key set.
func texts(value any) ([]string, error) {
	switch x := value.(type) {
	case string:
		return []string{x}, nil
	case json.Number:
		return []string{x.String()}, nil
	case bool:
		return []string{strconv.FormatBool(x)}, nil
	case nil:
		return nil, nil
	case map[string]any: // keys by their ids, or a key set
		if byID := keysByID(x); byID != nil {
			return byID, nil
		}
		text, err := json.Marshal(x)
		return []string{string(text)}, err
	case []any:
		var out []string
		for _, e := range x {
			one, err := texts(e)
			if err != nil {
				return nil, err
			}
			out = append(out, one...)
		}
		return out, nil
	}
	return nil, fmt.Errorf("a %T is neither text nor a list", value)
}

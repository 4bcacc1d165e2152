package verify

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// mailgun is Mailgun's scheme: HMAC-SHA256 of a timestamp and a token that stand in the
// body beside it. The event itself is not signed, so a token goes with one body only, for
// as long as its age allows it at all: another body under it is refused.
// Source: mailgun/mailgun-go webhooks.go, VerifyWebhookSignature.
type mailgun struct {
	v    *Verifier
	used map[string]bool // tokens that are spent, whatever the body (setting used_tokens)

	// Two generations of tokens with their bodies' hashes: when the younger one is older
	// than any token may be, or full, it becomes the elder, and the elder is forgotten.
	mu             sync.Mutex
	younger, elder map[string][sha256.Size]byte
	since          time.Time
}

// maxMailgunTokens bounds a generation; what it forgets early, the deduplication by the
// token still catches.
const maxMailgunTokens = 50_000

func newMailgun(v *Verifier) (ownScheme, error) {
	if len(v.keys) == 0 {
		return nil, errors.New("has no signing key")
	}
	return &mailgun{v: v, used: map[string]bool{}, younger: map[string][sha256.Size]byte{}}, nil
}

func (m *mailgun) configure(settings map[string]string) error {
	for _, t := range splitList(settings["used_tokens"]) {
		m.used[t] = true
	}
	return nil
}

func (m *mailgun) authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	m.v.load(r, sc)
	var parts [3][]byte
	for i, name := range []string{"timestamp", "token", "signature"} {
		text, reason := mailgunField(r, sc, name)
		if reason != "" {
			return "", reason
		}
		parts[i] = text
	}
	sig, err := hex.DecodeString(string(parts[2]))
	if err != nil || len(parts[1]) > 256 {
		return "", SignatureMalformed
	}
	at, ok := parseTime(parts[0], "s")
	if !ok {
		return "", SignatureMalformed
	}
	by = ""
	for i := range m.v.keys {
		if hmac.Equal(sig, mailgunSum(m.v.keys[i].secret, parts[0], parts[1])) {
			by = m.v.keys[i].by
			break
		}
	}
	if by == "" {
		return "", SignatureMismatch
	}
	if m.v.tolerance > 0 {
		if reason := within(at, now, m.v.tolerance); reason != "" {
			return "", reason
		}
	}
	if !m.first(string(parts[1]), r.Body, now) {
		return "", Policy
	}
	return by, ""
}

// mailgunField reads one of the three: of JSON a string of the member signature, of a form
// (routes, which send attachments as multipart, and webhooks of the first version) the
// field itself.
func mailgunField(r *provider.Request, sc *scratch, name string) ([]byte, string) {
	path := name
	if sc.source == sourceNone {
		if text, ok := provider.FormField(r, name); ok && len(text) > 0 {
			return text, ""
		}
		return nil, SignatureMissing
	}
	if sc.source == sourceJSON {
		path = "signature." + name
		if val, f := walk(sc.doc, path); f == foundText && val.Type() != fastjson.TypeString {
			return nil, SignatureMalformed
		}
	}
	text, f := sc.lookup(path)
	switch {
	case f == foundAbsent || f == foundNull || f == foundText && len(text) == 0:
		return nil, SignatureMissing
	case f != foundText:
		return nil, SignatureMalformed
	}
	return text, ""
}

func mailgunSum(secret, timestamp, token []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write(timestamp)
	h.Write(token)
	return h.Sum(nil)
}

// first notes the token with its body; false where it came with another one.
func (m *mailgun) first(token string, body []byte, now time.Time) bool {
	if m.used[token] {
		return false
	}
	sum := sha256.Sum256(body)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, seen := range []map[string][sha256.Size]byte{m.younger, m.elder} {
		if old, ok := seen[token]; ok {
			return hmac.Equal(old[:], sum[:])
		}
	}
	if age := now.Sub(m.since); len(m.younger) >= maxMailgunTokens || m.v.tolerance > 0 && age > 2*m.v.tolerance {
		m.elder, m.younger, m.since = m.younger, map[string][sha256.Size]byte{}, now
	}
	m.younger[token] = sum
	return true
}

func (m *mailgun) sign(r *provider.Request, now time.Time, _ *scratch) error {
	var raw [25]byte
	rand.Read(raw[:]) // never fails (Go 1.24)
	timestamp, token := strconv.FormatInt(now.Unix(), 10), hex.EncodeToString(raw[:])
	prefix := ""
	if isJSON(r.Body, m.v.s.Body) {
		prefix = "signature."
	}
	sig := hex.EncodeToString(mailgunSum(m.v.keys[0].secret, []byte(timestamp), []byte(token)))
	for _, f := range [][2]string{{"timestamp", timestamp}, {"token", token}, {"signature", sig}} {
		if err := setField(r, m.v.s.Body, prefix+f[0], f[1]); err != nil {
			return err
		}
	}
	return nil
}

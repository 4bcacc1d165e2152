package verify

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// Tenants verifies deliveries of one source with many merchants behind it. What the
// delivery says of its merchant selects the credentials, by one look-up; the credentials
// prove it: a delivery that names one merchant is never held against another one's key.
// It is immutable (With and Without make new ones) and safe for concurrent use.
type Tenants struct {
	def    *provider.Definition
	opts   Options
	places provider.TenantPlaces
	place  merchant  // for a merchant that stands inside a field's document
	own    *Verifier // of deliveries that name no merchant; nil = there are none
	// stranger verifies what names a merchant that we do not know, with keys that nobody
	// has: it takes the time and gives the reasons that any merchant's verifier would.
	stranger *Verifier
	set      map[string]*tenant
	owners   map[[sha256.Size]byte]string // by digest of what proves, so that no two merchants share it
}

type tenant struct {
	id     string
	v      *Verifier
	owned  [][sha256.Size]byte
	prints map[string][]string
}

// maxTenantID bounds a merchant's name, in bytes.
const maxTenantID = 200

// TenantError is a merchant whose credentials cannot verify anything.
type TenantError struct {
	Tenant string
	Err    error
}

// Error names the merchant.
func (e *TenantError) Error() string { return fmt.Sprintf("tenant %q: %v", e.Tenant, e.Err) }

// Unwrap gives the cause.
func (e *TenantError) Unwrap() error { return e.Err }

// ErrSharedSecret is two merchants with one key: each would prove the other's deliveries.
var ErrSharedSecret = errors.New("shares a secret with another tenant, so that neither proves who sent a delivery")

// NewTenants compiles a definition for many merchants: own are the credentials of
// deliveries that name no merchant (none = such deliveries are refused), all those of the
// merchants by their names. Every mistake is reported, as *TenantError or *ConfigError.
func NewTenants(def *provider.Definition, own provider.Credentials, all map[string]provider.Credentials, opts Options) (*Tenants, error) {
	t := &Tenants{def: def, opts: opts, set: make(map[string]*tenant, len(all)), owners: make(map[[sha256.Size]byte]string, len(all))}
	var err error
	if t.places, err = def.TenantPlaces(); err != nil {
		return nil, &ConfigError{Provider: def.Name, Setting: "tenants", Err: err}
	}
	if c := t.places.Credential; c != nil {
		t.place = merchant{c: *c}
	}
	if !slices.ContainsFunc(def.EffectiveCredentials(), proves) {
		return nil, &ConfigError{Provider: def.Name, Setting: "tenants", Err: errors.New("no credential of this provider proves anything, so none can tell merchants apart")}
	}
	made, err := DevCredentials(def, rand.Reader)
	if err != nil {
		return nil, err
	}
	if t.stranger, err = New(def, made, opts); err != nil {
		return nil, err
	}
	t.stranger.nobody = true
	if len(own) > 0 {
		if t.own, err = t.compile(own); err != nil {
			return nil, err
		}
		for _, d := range t.own.digests() {
			t.owners[d] = ""
		}
	}
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if err := t.add(id, all[id]); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

// proves: what the credential says is needed to make a signature.
func proves(c provider.Credential) bool {
	return c.Role == "key" || c.Role == "public_key" || c.Role == "password"
}

// With is t with one merchant more, or with other credentials for one that is there.
func (t *Tenants) With(id string, creds provider.Credentials) (*Tenants, error) {
	next := t.without(id)
	return next, next.add(id, creds)
}

// Without is t without a merchant.
func (t *Tenants) Without(id string) *Tenants { return t.without(id) }

func (t *Tenants) without(id string) *Tenants {
	next := *t
	next.set, next.owners = maps.Clone(t.set), maps.Clone(t.owners)
	if was := next.set[id]; was != nil {
		for _, d := range was.owned {
			delete(next.owners, d)
		}
		delete(next.set, id)
	}
	return &next
}

func (t *Tenants) add(id string, creds provider.Credentials) error {
	fail := func(err error) error { return &TenantError{Tenant: id, Err: err} }
	if err := CheckTenantID(id); err != nil {
		return fail(err)
	}
	creds = maps.Clone(creds)
	if c := t.places.Credential; c != nil {
		for _, v := range creds[c.Name] {
			if v != id {
				return fail(fmt.Errorf("credential %s says another merchant (it may be left out: the tenant's name is it)", c.Name))
			}
		}
		if creds == nil {
			creds = provider.Credentials{}
		}
		creds[c.Name] = []string{id}
	}
	v, err := t.compile(creds)
	if err != nil {
		return fail(err)
	}
	owned := v.digests()
	if len(owned) == 0 {
		return fail(errors.New("has no credential that proves anything"))
	}
	for _, d := range owned {
		if other, taken := t.owners[d]; taken && other != id {
			return fail(ErrSharedSecret)
		}
	}
	for _, d := range owned {
		t.owners[d] = id
	}
	v.naming = func(r *provider.Request) error { return t.nameIn(id, r) }
	t.set[id] = &tenant{id: id, v: v, owned: owned, prints: fingerprints(t.def, creds)}
	return nil
}

// CheckTenantID holds a merchant's name to what can stand in a header and a path.
func CheckTenantID(id string) error {
	switch {
	case strings.TrimSpace(id) == "":
		return errors.New("the name of a tenant is empty")
	case len(id) > maxTenantID:
		return fmt.Errorf("the name of a tenant has %d bytes, at most %d", len(id), maxTenantID)
	}
	for i := range len(id) {
		if id[i] < ' ' || id[i] == 0x7f {
			return errors.New("the name of a tenant has a control character in it")
		}
	}
	return nil
}

// digests name what proves under v, as the bytes that it computes with: two spellings of
// one key are one.
func (v *Verifier) digests() (out [][sha256.Size]byte) {
	lists := [][]key{v.keys, v.passwords}
	if len(v.passwords) == 0 {
		lists = append(lists, v.usernames)
	}
	for _, list := range lists {
		for i := range list {
			d := list[i].digest
			if list[i].public {
				d = sha256.Sum256([]byte("public " + list[i].fp))
			}
			out = append(out, d)
		}
	}
	return out
}

// compile makes a merchant's verifier: the stranger's scheme and working memory with other
// keys, so that ten thousand merchants cost little more than their keys.
func (t *Tenants) compile(creds provider.Credentials) (*Verifier, error) {
	v := *t.stranger
	v.nobody, v.signing, v.named = false, nil, nil
	v.keys, v.usernames, v.passwords, v.merchants, v.tokens = nil, nil, nil, nil, nil
	if err := v.compileKeys(creds); err != nil {
		return nil, err
	}
	if v.legacy != nil {
		legacy, err := legacyVerifier(v.name, *v.s, creds)
		if err != nil {
			return nil, err
		}
		legacy.pools, v.legacy = v.pools, legacy
	}
	return &v, v.compileOwn()
}

// Verify says whether r is what its sender claims, as Verifier.Verify does.
func (t *Tenants) Verify(r *provider.Request, now time.Time) (res Result) {
	defer func() {
		if recover() != nil {
			res = t.stranger.reject(Policy)
		}
	}()
	sc := t.stranger.get()
	one, v := t.pick(r, sc)
	res = v.verify(r, now, sc)
	t.stranger.put(sc)
	switch {
	case one != nil:
		res.Tenant = one.id // also of what is refused: its verdict says that nothing is proved
	case v == t.stranger && !res.handshake && res.Verdict == Rejected:
		res.Reason, res.Shown = MerchantMismatch, res.Reason
	case v == t.stranger && res.Verdict == Accepted: // nobody has its keys; never on trust
		res = v.reject(MerchantMismatch)
		res.Shown = SignatureMismatch
	}
	return res
}

// pick selects who verifies r: the merchant's verifier (and the merchant), the source's
// own where r names nobody, else the stranger.
func (t *Tenants) pick(r *provider.Request, sc *scratch) (*tenant, *Verifier) {
	name, f := t.name(r, sc)
	if f == foundText && len(name) > 0 {
		if one := t.set[string(name)]; one != nil {
			return one, one.v
		}
		return nil, t.stranger
	}
	if t.own != nil && (f == foundAbsent || f == foundNull || f == foundText) {
		return nil, t.own
	}
	return nil, t.stranger
}

// name is the merchant that r names, unproved.
func (t *Tenants) name(r *provider.Request, sc *scratch) ([]byte, found) {
	if t.places.List != "" {
		return t.nameOfAll(r, sc)
	}
	if t.places.Credential != nil {
		return t.stranger.merchantName(&t.place, r, sc)
	}
	for _, path := range t.places.Paths {
		name, f := t.stranger.placeText(path, r, sc)
		if f != foundAbsent && f != foundNull {
			return name, f
		}
	}
	return nil, foundAbsent
}

// nameOfAll wants every element of a batch to name the same merchant.
func (t *Tenants) nameOfAll(r *provider.Request, sc *scratch) (name []byte, f found) {
	v := t.stranger
	if !v.load(r, sc) || sc.source != sourceJSON {
		return nil, foundAbsent
	}
	list, f := walk(sc.doc, t.places.List)
	if f != foundText || list.Type() != fastjson.TypeArray {
		return nil, foundAbsent
	}
	items, err := list.Array()
	if err != nil || len(items) == 0 || len(items) > maxItems {
		return nil, foundAbsent
	}
	for i, item := range items {
		text, f := sc.lookupJSON(item, t.places.Paths[0])
		if f != foundText {
			return nil, foundOther
		}
		if i > 0 && string(text) != string(name) {
			return nil, foundDuplicate
		}
		if i == 0 {
			name = bytes.Clone(text)
		}
	}
	return name, foundText
}

// placeText reads header:Name or a path of the document.
func (v *Verifier) placeText(path string, r *provider.Request, sc *scratch) ([]byte, found) {
	if name, ok := strings.CutPrefix(path, "header:"); ok {
		return headerText(name, r)
	}
	if !v.load(r, sc) {
		return nil, foundAbsent
	}
	return sc.lookup(path)
}

// Ack is the provider's own answer to a delivery that was accepted, under its merchant's key.
func (t *Tenants) Ack(r *provider.Request, now time.Time) (reply Reply) {
	defer func() {
		if recover() != nil {
			reply = Reply{Status: 200}
		}
	}()
	v := t.stranger
	if v.ackBuilder != nil || v.ackFields != nil || v.ownAck != nil {
		sc := v.get()
		_, v = t.pick(r, sc)
		t.stranger.put(sc)
	}
	return v.Ack(r, now)
}

// Explain is Verifier.Explain with the merchant's credentials.
func (t *Tenants) Explain(r *provider.Request, now time.Time) Explanation {
	return t.ExplainAmong(r, now, Surroundings{})
}

// ExplainAmong is Explain with a look at what stands around the source.
func (t *Tenants) ExplainAmong(r *provider.Request, now time.Time, around Surroundings) Explanation {
	sc := &scratch{parts: make([][]byte, 0, 16), sigs: make([][]byte, t.stranger.sig.limit)}
	one, v := t.pick(r, sc)
	e := v.ExplainAmong(r, now, around)
	if one == nil && v == t.stranger {
		e.Verdict, e.Reason, e.VerifiedBy, e.Keys = Rejected, MerchantMismatch, "", nil
		e.Hints = []string{fmt.Sprintf("it names none of the %d tenants of this source (%s)", len(t.set), strings.Join(t.places.Paths, ", "))}
	}
	return e
}

// Warnings are the weaknesses of the source, once for all its merchants.
func (t *Tenants) Warnings() []string { return t.stranger.Warnings() }

// Len is the number of merchants.
func (t *Tenants) Len() int { return len(t.set) }

// Fingerprints names a merchant's credentials without showing them; nil for one that is
// not there.
func (t *Tenants) Fingerprints(id string) map[string][]string {
	if one := t.set[id]; one != nil {
		return one.prints
	}
	return nil
}

// Verifier is one merchant's own, to sign with; nil for one that is not there.
func (t *Tenants) Verifier(id string) *Verifier {
	if one := t.set[id]; one != nil {
		return one.v
	}
	return nil
}

func fingerprints(def *provider.Definition, creds provider.Credentials) map[string][]string {
	out := map[string][]string{}
	for _, c := range def.EffectiveCredentials() {
		for _, v := range creds[c.Name] {
			if c.Role == "public_key" {
				v = strings.TrimSpace(v) // as newPublicKey names it
			}
			out[c.Name] = append(out[c.Name], fingerprint(v))
		}
	}
	return out
}

// Fingerprint names a secret in lists and logs, as VerifiedBy does.
func Fingerprint(secret string) string { return fingerprint(secret) }

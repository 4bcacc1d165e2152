package verify

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// ownJWT is scheme jwt: all of it is data of the definition.
type ownJWT struct {
	v         *Verifier
	j         *provider.JWT
	published *keySet // nil = the keys are those of the credentials
	asked     *askedKeys
	basePath  string
}

func newJWT(v *Verifier) (ownScheme, error) {
	o := &ownJWT{v: v, j: v.s.JWT, basePath: strings.TrimSuffix(v.settings["base_path"], "/")}
	if len(v.keys) > 0 {
		return o, nil
	}
	var err error
	if o.asked, err = newAskedKeys(v); o.asked != nil || err != nil {
		return o, err
	}
	url := v.settings["jwks_url"]
	if url == "" && v.s.Published != nil {
		url = v.s.Published.URL
	}
	if url == "" {
		return nil, errors.New("has no key: give one of the credentials, or the setting jwks_url")
	}
	if !strings.HasPrefix(url, "https://") {
		return nil, &ConfigError{Provider: v.name, Setting: "jwks_url", Err: errors.New("is no https:// address")}
	}
	o.published = newKeySet(v, url)
	return o, nil
}

func (o *ownJWT) authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	token, reason := o.token(r, sc)
	if reason != "" {
		return "", reason
	}
	t, ok := o.v.parseJWS(token, false, sc)
	if !ok {
		return "", SignatureMalformed
	}
	if !slices.Contains(o.j.Algorithms, t.alg) {
		return "", SignatureMismatch
	}
	k, reason := o.prove(&t, now)
	if reason != "" {
		return "", reason
	}
	sc.parsed = max(sc.parsed, len(t.payload))
	if sc.claims = parseObject(&sc.jose, t.payload); sc.claims == nil {
		return "", SignatureMalformed
	}
	if reason := o.checkTime(now, sc); reason != "" {
		return "", reason
	}
	for _, name := range o.j.Require {
		if !sc.claims.Exists(name) {
			return "", SignatureMismatch
		}
	}
	for i := range o.j.Claims {
		if !o.holds(&o.j.Claims[i], r, sc) {
			return "", SignatureMismatch
		}
	}
	return k.by, ""
}

// prove finds the key that signed: among the source's own, or among the published ones.
func (o *ownJWT) prove(t *jws, now time.Time) (*key, string) {
	if o.asked != nil {
		return o.asked.prove(t, now)
	}
	if o.published == nil {
		if k := signer(o.v.keys, t); k != nil {
			return k, ""
		}
		return nil, SignatureMismatch
	}
	return o.published.prove(t)
}

// signer is the key of the list that made t. Where both name a key they must agree.
func signer(keys []key, t *jws) *key {
	for i := range keys {
		k := &keys[i]
		if k.id != "" && t.kid != "" && k.id != t.kid {
			continue
		}
		if jwsHolds(k, t.alg, t.signed, t.sig) {
			return k
		}
	}
	return nil
}

func (o *ownJWT) token(r *provider.Request, sc *scratch) ([]byte, string) {
	var text []byte
	switch {
	case o.j.Header != "":
		var n int
		if text, n = r.Header.Get(o.j.Header); n > 1 {
			return nil, DuplicateHeader
		}
	case o.j.Query != "":
		pairs, ok := sc.loadQuery(r)
		var n int
		if text, n = find(pairs, o.j.Query); !ok || n > 1 {
			return nil, SignatureMalformed
		}
	default:
		if !o.v.load(r, sc) {
			return nil, SignatureMissing
		}
		var f found
		if text, f = sc.lookup(o.j.JSON); f == foundDuplicate || f == foundOther {
			return nil, SignatureMalformed
		}
	}
	if len(text) == 0 {
		return nil, SignatureMissing
	}
	if p := o.j.Prefix; p != "" {
		if len(text) <= len(p) || !strings.EqualFold(string(text[:len(p)]), p) {
			return nil, SignatureMalformed
		}
		text = text[len(p):]
	}
	return text, ""
}

// checkTime holds exp, nbf and iat against the clock; a time that is no whole number is
// malformed. Without Tolerance the age by iat is not bounded, a future one is refused.
func (o *ownJWT) checkTime(now time.Time, sc *scratch) string {
	exp, hasExp, ok1 := claimTime(sc.claims, "exp")
	nbf, hasNbf, ok2 := claimTime(sc.claims, "nbf")
	iat, hasIat, ok3 := claimTime(sc.claims, "iat")
	if !ok1 || !ok2 || !ok3 {
		return SignatureMalformed
	}
	for name, there := range map[string]bool{"exp": hasExp, "nbf": hasNbf, "iat": hasIat} {
		if !there && slices.Contains(o.j.Require, name) {
			return TimestampMissing
		}
	}
	leeway := o.j.Leeway
	if hasExp && !now.Before(exp.Add(leeway)) || hasNbf && now.Before(nbf.Add(-leeway)) {
		return TimestampOutsideTolerance
	}
	if !hasIat {
		return ""
	}
	if o.v.tolerance > 0 {
		return within(iat, now, o.v.tolerance)
	}
	if now.Before(iat.Add(-max(leeway, time.Minute))) {
		return TimestampOutsideTolerance
	}
	return ""
}

// claimTime reads a NumericDate: whole seconds, as every provider here writes them; a
// fraction is cut off.
func claimTime(claims *fastjson.Value, name string) (at time.Time, there, ok bool) {
	x := claims.Get(name)
	if x == nil {
		return at, false, true
	}
	f, err := x.Float64()
	if err != nil || f < 0 || f > 1e11 {
		return at, true, false
	}
	return time.Unix(int64(f), 0), true, true
}

// holds says whether a claim is what the definition wants of it.
func (o *ownJWT) holds(c *provider.JWTClaim, r *provider.Request, sc *scratch) bool {
	x := sc.claims.Get(c.Claim)
	switch {
	case c.True:
		return x != nil && x.Type() == fastjson.TypeTrue
	case c.Equals == "url":
		return claimHas(x, o.url(r))
	case c.SHA256 != "":
		if c.Empty == "absent" && len(r.Body) == 0 {
			return x == nil
		}
		if x == nil {
			return false
		}
		text, err := x.StringBytes()
		return err == nil && hashEquals(text, o.hashed(c.SHA256, r), c.Encoding)
	}
	return slices.ContainsFunc(c.Is, func(want string) bool { return claimHas(x, want) })
}

// url is what the provider calls: the source's own word for it, or the public URL.
func (o *ownJWT) url(r *provider.Request) string {
	if o.v.url != "" {
		return o.v.url
	}
	return r.PublicURL
}

func (o *ownJWT) hashed(what string, r *provider.Request) []byte {
	switch what {
	case "url":
		return []byte(o.url(r))
	case "query":
		return queryString(r, o.basePath)
	}
	return r.Body
}

func hashEquals(text, of []byte, encoding string) bool {
	sum := sha256.Sum256(of)
	return hmac.Equal(text, encodeSum(sum[:], encoding))
}

func encodeSum(sum []byte, encoding string) []byte {
	switch encoding {
	case "base64":
		return []byte(base64.StdEncoding.EncodeToString(sum))
	case "base64url":
		return []byte(base64.RawURLEncoding.EncodeToString(sum))
	}
	return []byte(hex.EncodeToString(sum))
}

// claimHas: a text that is want, or a list with it (aud may be either).
func claimHas(x *fastjson.Value, want string) bool {
	if x == nil || want == "" {
		return false
	}
	if x.Type() == fastjson.TypeArray {
		list, err := x.Array()
		return err == nil && len(list) <= 16 && slices.ContainsFunc(list, func(e *fastjson.Value) bool {
			return e.Type() == fastjson.TypeString && claimHas(e, want)
		})
	}
	b, err := x.StringBytes()
	return err == nil && hmac.Equal(b, []byte(want))
}

// claim is a claim of the verified token, for the merchant that it names; of a list with
// one element, that one.
func (sc *scratch) claim(name string) ([]byte, found) {
	if sc.claims == nil {
		return nil, foundAbsent
	}
	x := sc.claims.Get(name)
	if x == nil {
		return nil, foundAbsent
	}
	if list, err := x.Array(); err == nil && len(list) == 1 {
		x = list[0]
	}
	return sc.text(x)
}

// sign writes the token that the provider would send.
func (o *ownJWT) sign(r *provider.Request, now time.Time, sc *scratch) error {
	alg := o.signAlgorithm()
	header := map[string]string{"alg": alg, "typ": "JWT"}
	if len(o.v.keys) > 0 && o.v.keys[0].id != "" {
		header["kid"] = o.v.keys[0].id
	}
	claims := map[string]any{"iat": now.Unix()}
	for _, name := range o.j.Require {
		switch name {
		case "exp":
			claims["exp"] = now.Add(3 * time.Minute).Unix()
		case "nbf":
			claims["nbf"] = now.Unix()
		case "iat":
		default:
			claims[name] = strings.TrimPrefix(string(madeUpID()), "msg_")
		}
	}
	for _, c := range o.j.Claims {
		switch {
		case c.True:
			claims[c.Claim] = true
		case c.Equals == "url":
			claims[c.Claim] = o.url(r)
		case c.SHA256 != "":
			if c.Empty == "absent" && len(r.Body) == 0 {
				continue
			}
			sum := sha256.Sum256(o.hashed(c.SHA256, r))
			claims[c.Claim] = string(encodeSum(sum[:], c.Encoding))
		default:
			claims[c.Claim] = c.Is[0]
		}
	}
	for i := range o.v.merchants {
		if name, ok := strings.CutPrefix(o.v.merchants[i].c.Field, "claim:"); ok {
			claims[name] = o.v.merchants[i].values[0]
		}
	}
	head, err := json.Marshal(header)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return err
	}
	signed := composeJWS(head, payload)
	sig, err := o.v.signJWS(alg, signed)
	if err != nil {
		return err
	}
	token := string(bytes.Join([][]byte{signed, []byte(base64.RawURLEncoding.EncodeToString(sig))}, dot))
	switch {
	case o.j.Header != "":
		r.Header = setHeader(r.Header, o.j.Header, o.j.Prefix+token)
	case o.j.Query != "":
		r.Target = setQuery(r.Target, o.j.Query, token)
	default:
		return setField(r, "json", o.j.JSON, token)
	}
	return nil
}

// signAlgorithm is the first that the source's key can sign with.
func (o *ownJWT) signAlgorithm() string {
	shared := len(o.v.keys) > 0 && !o.v.keys[0].public
	for _, alg := range o.j.Algorithms {
		if strings.HasPrefix(alg, "HS") == shared && (shared || o.v.signing == nil || o.v.signing.fits(alg)) {
			return alg
		}
	}
	return o.j.Algorithms[0]
}

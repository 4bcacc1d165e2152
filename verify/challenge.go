package verify

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"penstock/provider"
)

// maxChallengeBody bounds the body in which a challenge is looked for.
const maxChallengeBody = 16 << 10

// challenge is one handshake of the definition, compiled.
type challenge struct {
	c       provider.Challenge
	header  []provider.TemplatePiece // name, value as Kind, Arg
	query   []provider.TemplatePiece
	json    []provider.TemplatePiece
	headers []provider.TemplatePiece // of the answer
	body    *regexp.Regexp
	hint    []byte // stands in every body that matches: spares parsing the others
}

func newChallenge(c provider.Challenge) challenge {
	ch := challenge{c: c, header: conditions(c.Header), query: conditions(c.Query), json: conditions(c.JSON), headers: conditions(c.Reply.Headers)}
	if c.Body != "" {
		ch.body = regexp.MustCompile("^(?:" + c.Body + ")$") // Scheme.Validate has compiled it
	}
	for _, p := range ch.json {
		hint := p.Arg
		if hint == "" {
			hint = p.Kind[strings.LastIndexByte(p.Kind, '.')+1:]
		}
		if len(hint) > len(ch.hint) {
			ch.hint = []byte(hint)
		}
	}
	return ch
}

func conditions(m map[string]string) []provider.TemplatePiece {
	var out []provider.TemplatePiece
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, provider.TemplatePiece{Kind: k, Arg: m[k]})
	}
	return out
}

// matchChallenge finds the handshake that r is, if any. Whether it is answered is another
// matter: a signed one only after its signature holds.
func (v *Verifier) matchChallenge(r *provider.Request, sc *scratch) *challenge {
	for i := range v.challenges {
		ch := &v.challenges[i]
		if ch.c.Method == r.Method && v.matches(ch, r, sc) {
			return ch
		}
	}
	return nil
}

func (v *Verifier) matches(ch *challenge, r *provider.Request, sc *scratch) bool {
	for _, want := range ch.header {
		if val, n := r.Header.Get(want.Kind); n != 1 || want.Arg != "" && string(val) != want.Arg {
			return false
		}
	}
	if len(ch.query) > 0 {
		pairs, ok := sc.loadQuery(r)
		if !ok {
			return false
		}
		for _, want := range ch.query {
			if val, n := find(pairs, want.Kind); n != 1 || want.Arg != "" && string(val) != want.Arg {
				return false
			}
		}
	}
	if ch.body != nil && (len(r.Body) > maxChallengeBody || !ch.body.Match(r.Body)) {
		return false
	}
	if len(ch.json) == 0 {
		return true
	}
	if len(r.Body) > maxChallengeBody || !bytes.Contains(r.Body, ch.hint) || !sc.challengeDoc(r) {
		return false
	}
	for _, want := range ch.json {
		val, f := sc.lookupJSON(sc.doc, want.Kind)
		if f != foundText || want.Arg != "" && string(val) != want.Arg {
			return false
		}
	}
	for _, path := range ch.c.Without {
		if _, f := walk(sc.doc, path); f != foundAbsent {
			return false
		}
	}
	return true
}

// challengeDoc reads the body as JSON without settling how the scheme reads it.
func (sc *scratch) challengeDoc(r *provider.Request) bool {
	if sc.doc == nil {
		was := sc.source
		sc.loadJSON(r.Body)
		sc.source = was
	}
	return sc.doc != nil
}

// answerChallenge gives the reply, or a refusal where the token or the value is not as it
// must be. What is echoed is never rendered: text/plain or inside JSON here, and the edge
// adds nosniff and a policy without scripts to every challenge.
//
// by names the key that proved a signed challenge; "" = the first one.
func (v *Verifier) answerChallenge(ch *challenge, r *provider.Request, by string, sc *scratch) Result {
	if ch.c.Token != nil {
		text, ok := v.valueAt(ch.c.Token, r, sc)
		if !ok || len(v.tokens) == 0 {
			return v.refuseChallenge(ch, SignatureMissing)
		}
		if equalToken(v.tokens, text) == nil {
			return v.refuseChallenge(ch, SignatureMismatch)
		}
	}
	reply := &Reply{Status: ch.c.Reply.Status, ContentType: ch.c.Reply.ContentType, Body: []byte(ch.c.Reply.Body)}
	if reply.Status == 0 {
		reply.Status = 200
	}
	if ch.c.Echo != nil {
		value, ok := v.valueAt(ch.c.Echo, r, sc)
		if !ok || !echoable(value, ch.c.Reply) {
			return v.refuseChallenge(ch, Policy)
		}
		setEcho(reply, ch.c.Reply, value)
		if m := ch.c.Reply.MAC; m != nil {
			mac, ok := v.replyMAC(m, value, by, sc)
			if !ok {
				return v.refuseChallenge(ch, Policy)
			}
			reply.setMember(m.JSON, mac, ch.c.Reply.JSON != "")
		}
	}
	for _, h := range ch.headers {
		reply.Header = append(reply.Header, [2]string{h.Kind, answerHeader(h.Arg, r)})
	}
	res := Result{Verdict: Challenge, Reply: reply}
	if ch.c.Capture != nil {
		secret, ok := v.valueAt(&ch.c.Capture.FromWhere, r, sc)
		if !ok || len(secret) < leastCaptured || !echoable(secret, provider.ReplyFormat{}) {
			return v.refuseChallenge(ch, Policy)
		}
		switch {
		case len(v.keys) == 0:
			res.Capture = &Capture{Credential: ch.c.Capture.Credential, Secret: string(secret)}
		case equalToken(v.keys, secret) == nil:
			// Anybody can send a handshake: the first one counts. The kept secret itself is
			// the provider asking again for an answer that it did not get.
			return v.refuseChallenge(ch, Policy)
		}
	}
	return res
}

// leastCaptured is the least length of a secret, as for those of the configuration.
const leastCaptured = 8

// answerHeader is fixed text, or with "{h:Name|text}" a header of the request where that is
// a short plain token, else the text.
func answerHeader(text string, r *provider.Request) string {
	inner, ok := strings.CutPrefix(text, "{h:")
	if !ok {
		return text
	}
	name, otherwise, _ := strings.Cut(strings.TrimSuffix(inner, "}"), "|")
	if val, n := r.Header.Get(name); n == 1 && len(val) <= 16 && echoable(val, provider.ReplyFormat{}) {
		return string(val)
	}
	return otherwise
}

func setEcho(reply *Reply, f provider.ReplyFormat, value []byte) {
	if f.Header != "" {
		reply.Header = append(reply.Header, [2]string{f.Header, string(value)})
	}
	switch {
	case f.JSON != "":
		reply.ContentType = "application/json"
		reply.Body = append(append(append(append([]byte{'{'}, jsonText(f.JSON)...), ':'), jsonText(string(value))...), '}')
	case f.Header == "" && f.Body == "" && f.MAC == nil:
		reply.ContentType = "text/plain"
		reply.Body = bytes.Clone(value)
	}
}

// replyMAC is the HMAC of an echoed value. It is what the provider would sign a body of
// just that text with, so the value must not read as a text worth signing: tokens alone
// get here (echoable), and none with a ":", which joins version, time and body at those
// who sign "v0:<time>:<body>".
func (v *Verifier) replyMAC(m *provider.ReplyMAC, value []byte, by string, sc *scratch) (string, bool) {
	if bytes.IndexByte(value, ':') >= 0 || v.nobody {
		return "", false
	}
	for i := range v.keys {
		if k := &v.keys[i]; !k.public && (by == "" || k.by == by) {
			sc.parts = append(sc.parts[:0], value)
			return m.Prefix + encode(v.sumWith(k, v.alg, sc), m.Encoding), true
		}
	}
	return "", false
}

// setMember appends one text to a JSON answer, or begins it.
func (r *Reply) setMember(name, value string, follows bool) {
	r.ContentType = "application/json"
	if follows {
		r.Body = append(r.Body[:len(r.Body)-1], ',')
	} else {
		r.Body = []byte{'{'}
	}
	r.Body = append(append(append(append(r.Body, jsonText(name)...), ':'), jsonText(value)...), '}')
}

func (v *Verifier) refuseChallenge(ch *challenge, reason string) Result {
	res := v.reject(reason)
	res.handshake = true
	if ch.c.Refusal != 0 {
		res.Reply = &Reply{Status: ch.c.Refusal}
	}
	return res
}

// valueAt reads one value that stands exactly once.
func (v *Verifier) valueAt(w *provider.FromWhere, r *provider.Request, sc *scratch) ([]byte, bool) {
	switch {
	case w.Query != "":
		pairs, ok := sc.loadQuery(r)
		val, n := find(pairs, w.Query)
		return val, ok && n == 1
	case w.Header != "":
		val, n := r.Header.Get(w.Header)
		return val, n == 1
	}
	if len(r.Body) > maxChallengeBody || !sc.challengeDoc(r) {
		return nil, false
	}
	val, f := sc.lookupJSON(sc.doc, w.JSON)
	return val, f == foundText
}

// echoable bounds what is given back: by default 512 bytes of letters, digits and the
// marks of tokens, so that no answer can carry markup, JSON or a text worth signing.
func echoable(value []byte, f provider.ReplyFormat) bool {
	limit := f.Max
	if limit == 0 {
		limit = 512
	}
	if len(value) == 0 || len(value) > limit {
		return false
	}
	for _, c := range value {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-_.~+/=:", c) >= 0:
		case f.Charset == "printable" && f.Header == "" && c >= ' ' && c < 0x7f:
		default:
			return false
		}
	}
	return true
}

// jsonText is s as a JSON string, without the escapes that are for HTML.
func jsonText(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return []byte(`""`)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

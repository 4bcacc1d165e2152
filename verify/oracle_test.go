package verify

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"penstock/provider"
)

// TestNoChallengeIsAnOracle: what a stranger is answered in a handshake, whatever text he
// asks about, is of no use to him: no value of an answer signs a delivery, and none is a
// secret. All kinds of handshakes that the catalogue has, with random texts.
func TestNoChallengeIsAnOracle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	asked, answered, computed := 0, 0, 0
	for _, name := range builtin(t).Names() {
		def := get(t, name)
		v, creds := devVerifier(t, def)
		if v.ownHandshake == nil && len(def.Challenge) == 0 {
			continue
		}
		good := signed(t, v, name)
		for range 30 {
			text := oracleText(rnd, good)
			for _, r := range handshakesAbout(def, good, text, creds) {
				asked++
				res := v.Verify(r, testNow)
				if res.Verdict == Accepted {
					t.Fatalf("%s: an unsigned handshake is accepted: %s %s", name, r.Method, r.Target)
				}
				if res.Verdict != Challenge || res.Reply == nil {
					continue
				}
				answered++
				wantNoSecret(t, name, def, creds, r, res.Reply)
				for _, mac := range computedIn(res.Reply, r) {
					computed++
					for _, forged := range forgeries(def, good, text, mac) {
						if res := v.Verify(forged, testNow); res.Verdict == Accepted || res.Verdict == Challenge && res.VerifiedBy != "" {
							t.Errorf("%s: the answer to %q signs a delivery: %s %s %q %q", name, text, forged.Method, forged.Target, forged.Header, forged.Body)
						}
					}
				}
			}
		}
	}
	if asked < 1000 || answered < 150 || computed < 25 {
		t.Errorf("too little was tried: %d asked, %d answered, %d with a computed value", asked, answered, computed)
	}
}

// oracleText is what somebody would like to have signed: a token, or a delivery's own text.
func oracleText(rnd *rand.Rand, good *provider.Request) string {
	word := func(from string, n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = from[rnd.IntN(len(from))]
		}
		return string(b)
	}
	switch rnd.IntN(9) {
	case 0:
		return word("0123456789", 1+rnd.IntN(20))
	case 1:
		return word("0123456789abcdef", 20+rnd.IntN(13))
	case 2:
		return string(good.Body)
	case 3:
		return fmt.Sprintf("v0:%d:%s", testNow.Unix(), good.Body)
	case 4:
		return fmt.Sprintf("%d.%s", testNow.Unix(), word("abc", 9))
	case 5:
		return `{"` + word("abc", 3) + `":1}`
	case 6:
		return word("abcdefghijklmnopqrstuvwxyz=&", 12)
	case 7:
		return []string{"null", "true", "1", "-1", "1e5", `"a"`, "[]", "{}", ""}[rnd.IntN(9)]
	}
	return word("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~+/=", 1+rnd.IntN(64))
}

// handshakesAbout are the handshakes of a definition, unsigned, that ask about text.
func handshakesAbout(def *provider.Definition, good *provider.Request, text string, creds provider.Credentials) (out []*provider.Request) {
	for i := range def.Challenge {
		c := &def.Challenge[i]
		r := &provider.Request{Method: c.Method, Target: []byte("/in/x"), PublicURL: "https://h/in/x"}
		or := func(s string) string {
			if s == "" {
				return text
			}
			return s
		}
		query, members, headers := url.Values{}, map[string]string{}, [][2]string{}
		put := func(w *provider.FromWhere, value string) {
			switch {
			case w == nil:
			case w.Query != "":
				query.Set(w.Query, value)
			case w.Header != "":
				headers = append(headers, [2]string{w.Header, value})
			case w.JSON != "":
				members[w.JSON] = value
			}
		}
		for k, val := range c.Header {
			if c.Echo == nil || c.Echo.Header != k {
				headers = append(headers, [2]string{k, or(val)})
			}
		}
		for k, val := range c.Query {
			query.Set(k, or(val))
		}
		for k, val := range c.JSON {
			members[k] = or(val)
		}
		put(c.Echo, text)
		if c.Token != nil { // the stranger knows it here: the answer must be of no use even then
			for _, spec := range def.EffectiveCredentials() {
				if spec.Role == "verify_token" && len(creds[spec.Name]) > 0 {
					put(c.Token, creds[spec.Name][0])
				}
			}
		}
		if len(query) > 0 {
			r.Target = []byte("/in/x?" + query.Encode())
			r.PublicURL += "?" + query.Encode()
		}
		r.Header = provider.MakeHeader(headers)
		for path, value := range members {
			if len(r.Body) == 0 {
				r.Body = []byte("{}")
			}
			if err := setField(r, "json", path, value); err != nil {
				r.Body = nil
			}
		}
		out = append(out, r)
	}
	// And what schemes with own code look for.
	for _, q := range []string{"bt_challenge=", "echostr=", "challenge=", "crc_token="} {
		out = append(out, &provider.Request{Method: "GET", Target: []byte("/in/x?" + q + url.QueryEscape(text)), PublicURL: "https://h/in/x?" + q + url.QueryEscape(text)})
	}
	return out
}

func wantNoSecret(t *testing.T, name string, def *provider.Definition, creds provider.Credentials, asked *provider.Request, reply *Reply) {
	t.Helper()
	all, question := fmt.Sprint(reply.Header)+string(reply.Body), string(asked.Target)+string(asked.Header)+string(asked.Body)
	for _, c := range def.EffectiveCredentials() {
		for _, secret := range creds[c.Name] {
			if len(secret) >= 8 && c.Role != "merchant" && c.Role != "part" && strings.Contains(all, secret) && !strings.Contains(question, secret) {
				t.Errorf("%s: the answer to a handshake shows %s", name, c.Name)
			}
		}
	}
}

var wordOfReply = regexp.MustCompile(`[A-Za-z0-9+/_=-]{16,}`)

// computedIn are the texts of an answer that were not in the question.
func computedIn(reply *Reply, asked *provider.Request) (out []string) {
	all := string(reply.Body)
	for _, h := range reply.Header {
		all += "\n" + h[1]
	}
	target, err := url.QueryUnescape(string(asked.Target))
	if err != nil {
		target = string(asked.Target)
	}
	question := target + string(asked.Header) + string(asked.Body)
	for _, word := range wordOfReply.FindAllString(all, -1) {
		if word = strings.TrimRight(strings.TrimPrefix(word, "sha256="), "="); !strings.Contains(question, word) && !slices.Contains(out, word) {
			out = append(out, word)
		}
	}
	return out
}

// forgeries are deliveries of text whose signature is mac, in the form that the provider's
// own signature has.
func forgeries(def *provider.Definition, good *provider.Request, text, mac string) (out []*provider.Request) {
	signatures := append([]string{def.Signature.Header}, def.Signature.Alternatives...)
	for _, p := range def.Prefixes {
		signatures = append(signatures, p+"-signature")
	}
	for _, h := range signatures {
		old, n := good.Header.Get(h)
		if h == "" || n != 1 {
			continue
		}
		r := with(good, h, strings.Replace(string(old), mainSignature(string(old)), mac, 1))
		r.Body = []byte(text)
		out = append(out, r)
	}
	if form, err := url.ParseQuery(string(good.Body)); err == nil && form.Has("bt_signature") {
		public, _, _ := strings.Cut(form.Get("bt_signature"), "|")
		r := clone(good)
		r.Body = []byte(url.Values{"bt_signature": {public + "|" + mac}, "bt_payload": {text}}.Encode())
		out = append(out, r)
	}
	return out
}

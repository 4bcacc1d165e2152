package verify

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// payments places what single payment providers' vectors say in words of their own.
func (m *mapped) payments(def *provider.Definition, c *Case, used map[string]bool) {
	switch def.Name {
	case "payfast":
		if c.Secrets["passphrase"] == "" { // an account that has none
			delete(m.creds, "passphrase")
			m.opts.Settings["without_passphrase"] = "true"
		}
	case "tpay": // what stands at Tpay's host is in the vector
		at, ok := c.Secrets["x5u_public_keys"].(map[string]any)
		m.opts.Keys = keysAt(at)
		used["x5u_public_keys"], used["x5u_prefix"] = ok, c.Secrets["x5u_prefix"] == tpayLive
	case "trustly": // the key that signs our answers is made up; compareAck looks at the construction
		used["direction"] = c.Secrets["direction"] == "notification" || c.Secrets["direction"] == "ack"
		m.creds["private_key"] = []string{answerKey()}
	case "vipps": // the host is a part of the URL that the provider calls
		host, _ := c.Secrets["host"].(string)
		used["host"] = strings.HasPrefix(c.Request.URL, "https://"+host+"/")
	}
}

// ownPrimitive is a scheme whose comparison can be tested without the rest around it.
type ownPrimitive interface {
	primitive(r *provider.Request, sc *scratch) bool
}

// keysAt serves published keys out of a vector.
type keysAt map[string]any

// Fetch gives what the vector says that stands at url.
func (k keysAt) Fetch(url string) ([]byte, error) {
	text, ok := k[url].(string)
	if !ok {
		return nil, fmt.Errorf("the vector has nothing at %s", url)
	}
	return []byte(text), nil
}

var answerKey = sync.OnceValue(func() string {
	pair, err := newKeyPair(&provider.Scheme{Scheme: "rsa"}, rand.Reader)
	if err != nil {
		return ""
	}
	return pair.private
})

// compareAck compares an answer that is signed with a key which the vector keeps to
// itself: the text beside the two signatures must be the same, ours must be over what
// theirs is over.
func compareAck(v *Verifier, want *CaseReply, got *Reply) string {
	t, ok := v.own.(*trustly)
	if want.MerchantKey == "" || !ok {
		return compareReply(want, got)
	}
	theirs, err := fastjson.Parse(want.Body)
	if err != nil {
		return err.Error()
	}
	ours, err := fastjson.ParseBytes(got.Body)
	if err != nil {
		return err.Error()
	}
	k, err := newPublicKey("merchant", want.MerchantKey, "pem", primRSA, "rsa")
	if err != nil {
		return err.Error()
	}
	a, b := string(theirs.GetStringBytes("result", "signature")), string(ours.GetStringBytes("result", "signature"))
	text := trustlyAckText(string(ours.GetStringBytes("result", "method")), string(ours.GetStringBytes("result", "uuid")))
	for _, s := range []struct {
		pub *rsa.PublicKey
		sig string
	}{{k.rsa, a}, {&t.answer.PublicKey, b}} {
		sig, err := base64.StdEncoding.DecodeString(s.sig)
		sum := sha1.Sum(text)
		if err != nil || rsa.VerifyPKCS1v15(s.pub, crypto.SHA1, sum[:], sig) != nil {
			return "the signature is not over method, uuid and statusOK"
		}
	}
	same := *want
	same.Body = strings.Replace(want.Body, a, b, 1)
	return compareReply(&same, got)
}

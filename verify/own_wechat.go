package verify

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock/provider"
)

// wechat is the scheme of WeChat's official accounts: SHA-1 of token, timestamp and nonce,
// sorted and joined. It does not cover the body. In the encrypted mode msg_signature adds
// the cipher text; where it is sent, it must hold too.
// Source: silenceper/wechat util/signature.go; Tencent's WXBizMsgCrypt samples.
type wechat struct {
	v         *Verifier
	encrypted bool // msg_signature must be sent
}

func newWeChat(v *Verifier) (ownScheme, error) {
	if len(v.keys) == 0 {
		return nil, errors.New("has no token")
	}
	if n := len(v.readingKey); n != 0 && n != 43 {
		return nil, fmt.Errorf("aes_key has %d characters: an EncodingAESKey has 43", n)
	}
	return &wechat{v: v}, nil
}

func (w *wechat) configure(settings map[string]string) error {
	w.encrypted = settings["encrypted"] == "true"
	return nil
}

func (w *wechat) authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	query, ok := sc.loadQuery(r)
	if !ok {
		return "", SignatureMalformed
	}
	var parts [4]string // timestamp, nonce, signature, msg_signature
	for i, name := range []string{"timestamp", "nonce", "signature", "msg_signature"} {
		value, n := find(query, name)
		if n > 1 {
			return "", SignatureMalformed
		}
		parts[i] = string(value)
	}
	switch {
	case parts[2] == "" || w.encrypted && parts[3] == "" && r.Method != "GET":
		return "", SignatureMissing
	case parts[0] == "":
		return "", TimestampMissing
	case parts[1] == "":
		return "", SignatureMissing
	}
	at, ok := parseTime([]byte(parts[0]), "s")
	if !ok {
		return "", SignatureMalformed
	}
	k, reason := w.match(parts[2], parts[0], parts[1])
	if reason != "" {
		return "", reason
	}
	if parts[3] != "" && r.Method != "GET" {
		cipher, ok := w.cipherText(r)
		if !ok {
			return "", SignatureMalformed
		}
		if k, reason = w.match(parts[3], parts[0], parts[1], cipher); reason != "" {
			return "", reason
		}
	}
	if w.v.tolerance > 0 {
		if reason := within(at, now, w.v.tolerance); reason != "" {
			return "", reason
		}
	}
	return k.by, ""
}

// match finds the token with which the texts make the signature.
func (w *wechat) match(signature string, texts ...string) (*key, string) {
	want, err := hex.DecodeString(signature)
	if err != nil || len(want) != sha1.Size {
		return nil, SignatureMalformed
	}
	for i := range w.v.keys {
		if hmac.Equal(want, wechatSum(&w.v.keys[i], texts)) {
			return &w.v.keys[i], ""
		}
	}
	return nil, SignatureMismatch
}

func wechatSum(k *key, texts []string) []byte {
	list := append([]string{string(k.secret)}, texts...)
	slices.Sort(list)
	sum := sha1.Sum([]byte(strings.Join(list, "")))
	return sum[:]
}

// cipherText is what the encrypted mode signs.
func (w *wechat) cipherText(r *provider.Request) (string, bool) {
	sc := &scratch{}
	text, err := provider.XMLToJSON(r.Body)
	if err != nil {
		return "", false
	}
	sc.loadJSON(text)
	value, f := sc.lookup("xml.Encrypt")
	return string(value), f == foundText
}

func (w *wechat) sign(r *provider.Request, now time.Time, _ *scratch) error {
	timestamp, nonce := strconv.FormatInt(now.Unix(), 10), strconv.FormatInt(now.UnixNano()%1e9, 10)
	k := &w.v.keys[0]
	r.Target = setQuery(r.Target, "signature", hex.EncodeToString(wechatSum(k, []string{timestamp, nonce})))
	r.Target = setQuery(r.Target, "timestamp", timestamp)
	r.Target = setQuery(r.Target, "nonce", nonce)
	if cipher, ok := w.cipherText(r); ok {
		r.Target = setQuery(r.Target, "msg_signature", hex.EncodeToString(wechatSum(k, []string{timestamp, nonce, cipher})))
	}
	return nil
}

package provider

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"strings"
	"testing"
)

// TestSealed: a sealed delivery is read with the source's key, whichever of several it is;
// without it the event has the same identity, says what is wrong, and is not booked unasked.
func TestSealed(t *testing.T) {
	d, _ := builtins(t).Get("wechatpay")
	key, other := strings.Repeat("k", 32), strings.Repeat("o", 32)
	r, err := d.Sample("", SampleParams{OrderID: "ORD-77", Now: sampleNow})
	if err != nil {
		t.Fatal(err)
	}
	plain := r.Body
	if r.Body, err = d.Decrypt.Seal(plain, []byte(key)); err != nil || bytes.Contains(r.Body, []byte("ORD-77")) {
		t.Fatalf("%v %s", err, r.Body)
	}
	read := func(secrets Credentials) Event {
		t.Helper()
		r.Secrets = secrets
		evs, err := d.Events(r)
		if err != nil || len(evs) != 1 {
			t.Fatalf("%v %d", err, len(evs))
		}
		return evs[0]
	}
	open := read(Credentials{"apiv3_key": {other, key}})
	if open.OrderID != "ORD-77" || open.Amount == nil || open.NeedsFetch || len(open.Problems) > 0 || !bytes.Contains(open.Payload, []byte("ORD-77")) {
		t.Errorf("%+v", open)
	}
	for name, secrets := range map[string]Credentials{"no key": nil, "another key": {"apiv3_key": {other}}, "no key of AES": {"apiv3_key": {"short"}}} {
		shut := read(secrets)
		if shut.CEID != open.CEID || shut.OrderID != "" || !shut.NeedsFetch || len(shut.Problems) == 0 || bytes.Contains(shut.Payload, []byte("ORD-77")) {
			t.Errorf("%s: %+v", name, shut)
		}
	}
	i := bytes.Index(r.Body, []byte(`"ciphertext":"`)) + len(`"ciphertext":"`)
	r.Body[i] ^= 1
	if e := read(Credentials{"apiv3_key": {key}}); e.OrderID != "" || len(e.Problems) == 0 {
		t.Errorf("an altered text was opened: %+v", e)
	}
}

// TestSealMistakes: a definition that cannot open what it says is refused at load.
func TestSealMistakes(t *testing.T) {
	const head = "name: x\nscheme: hmac\nalgorithm: sha256\nsigned: \"{body}\"\nsignature: {header: S, encoding: hex}\nevent: {id: x}\n"
	if _, err := Parse("f.yaml", []byte(head+"decrypt: {path: a, key: secrets, text: t, nonce: n}\n")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"decrypt: {path: a, key: nobody, text: t, nonce: n}",
		"decrypt: {path: a.b, key: secrets, text: t, nonce: n}",
		"decrypt: {path: a, key: secrets, nonce: n}",
		"document: [{query: data, as: base64-form, key: nobody}]",
		"document: [{query: data}]",
	} {
		if _, err := Parse("f.yaml", []byte(head+bad+"\n")); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// sealWeChat seals as WeChat's safe mode does.
func sealWeChat(t *testing.T, key, message, account string) string {
	t.Helper()
	k, err := base64.RawStdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append([]byte("sixteen-bytes-00"), 0, 0, byte(len(message)>>8), byte(len(message)))
	text = append(append(text, message...), account...)
	pad := 32 - len(text)%32
	text = append(text, bytes.Repeat([]byte{byte(pad)}, pad)...)
	block, err := aes.NewCipher(k)
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCEncrypter(block, k[:16]).CryptBlocks(text, text)
	return base64.StdEncoding.EncodeToString(text)
}

// TestWeChatSafeMode: what is sealed is read where the key is there; without it, and under
// another, the delivery is still an event, and says that it is sealed.
func TestWeChatSafeMode(t *testing.T) {
	const key = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	const message = "<xml><ToUserName>gh_1</ToUserName><FromUserName>o1</FromUserName><CreateTime>1780000000</CreateTime><MsgType>text</MsgType><Content>hello</Content><MsgId>77</MsgId></xml>"
	cat, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	def, _ := cat.Get("wechat")
	if names := def.ReadingCredentials(); len(names) != 1 || names[0] != "aes_key" {
		t.Errorf("reading credentials %q", names)
	}
	read := func(body string, keys ...string) Event {
		t.Helper()
		r := &Request{Method: "POST", Target: []byte("/in/wechat?signature=x"), Body: []byte(body), Header: MakeHeader([][2]string{{"Content-Type", "text/xml"}}),
			Secrets: map[string][]string{"aes_key": keys}}
		events, err := def.Events(r)
		if err != nil || len(events) != 1 {
			t.Fatalf("%d events, %v", len(events), err)
		}
		return events[0]
	}
	body := "<xml><ToUserName>gh_1</ToUserName><Encrypt><![CDATA[" + sealWeChat(t, key, message, "wx0123456789abcdef") + "]]></Encrypt></xml>"
	if e := read(body, strings.Repeat("k", 43), key); e.Tenant != "gh_1" || e.Subject != "o1" || e.Type != "text" || !strings.Contains(string(e.Payload), "<Content>hello</Content>") {
		t.Errorf("opened: %+v", e)
	}
	for what, e := range map[string]Event{"no key": read(body), "another key": read(body, strings.Repeat("k", 43)), "a broken key": read(body, "x")} {
		if strings.Contains(string(e.Payload), "hello") || !strings.Contains(string(e.Payload), "Encrypt") || e.Subject == "o1" {
			t.Errorf("%s: %+v", what, e)
		}
	}
	if e := read(message, key); e.Subject != "o1" || e.Type != "text" {
		t.Errorf("in the clear: %+v", e)
	}
}

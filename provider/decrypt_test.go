package provider

import (
	"bytes"
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

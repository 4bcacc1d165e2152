package provider

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
)

func saasEvents(t *testing.T, name, target, body string) []Event {
	t.Helper()
	d, ok := builtins(t).Get(name)
	if !ok {
		t.Fatalf("no definition %s", name)
	}
	evs, err := d.Events(&Request{Method: "POST", Target: []byte(target), Body: []byte(body), ReceivedAt: sampleNow})
	if err != nil {
		t.Fatal(err)
	}
	return evs
}

// TestFirstItemSigned: of a batch of Segment's only the first event is proved. The others
// say so, and one that somebody made up stands in nobody's way.
func TestFirstItemSigned(t *testing.T) {
	const first = `{"type":"track","event":"A","messageId":"m1","properties":{"order_id":"o1"}}`
	real := saasEvents(t, "segment", "/in/segment", `[`+first+`,{"type":"track","messageId":"m2","userId":"u"}]`)
	forged := saasEvents(t, "segment", "/in/segment", `[`+first+`,{"type":"track","messageId":"m2","userId":"v"}]`)
	alone := saasEvents(t, "segment", "/in/segment", `{"type":"track","messageId":"m2","userId":"u"}`)
	if len(real) != 2 || real[0].NeedsFetch || len(real[0].UnverifiedFields) > 0 || real[0].CEID != forged[0].CEID {
		t.Fatalf("the first: %+v", real)
	}
	if e := real[1]; !e.NeedsFetch || !slices.Contains(e.UnverifiedFields, "id") || !slices.Contains(e.UnverifiedFields, "type") || e.ID != "m2" {
		t.Errorf("the second: %+v", e)
	}
	if real[1].CEID == forged[1].CEID || real[1].CEID == alone[0].CEID || alone[0].CEID != "m2" {
		t.Errorf("ids %s, %s, %s", real[1].CEID, forged[1].CEID, alone[0].CEID)
	}
	if _, err := Parse("f.yaml", []byte(head+"event: {id: id}\nsigned_items: first\n")); err == nil {
		t.Error("signed_items without items was taken")
	}
}

// TestJoinedIdentity: one signature of Twilio's fits forms that differ in where a name
// ends and in how often a field stands there; they are one event, another URL is another.
func TestJoinedIdentity(t *testing.T) {
	id := func(target, form string) string { return saasEvents(t, "twilio", target, form)[0].CEID }
	want := id("/t?a=1", "MessageSid=SM1&Body=ab&MessageStatus=sent")
	for _, form := range []string{"Body=ab&MessageSid=SM1&MessageStatus=sent", "MessageSid=SM1&Body=ab&MessageStatus=sent&Body=ab", "MessageSid=SM1&Bodya=b&MessageStatus=sent"} {
		if got := id("/t?a=1", form); got != want {
			t.Errorf("%s: %s, want %s", form, got, want)
		}
	}
	for target, form := range map[string]string{"/t?a=1": "MessageSid=SM1&Body=ab&MessageStatus=delivered", "/t?a=2": "MessageSid=SM1&Body=ab&MessageStatus=sent"} {
		if id(target, form) == want {
			t.Errorf("%s %s is the same event", target, form)
		}
	}
}

// TestXMLItems: one element is a list of one, so that a repeated message is the same event
// whatever it comes together with.
func TestXMLItems(t *testing.T) {
	note := func(ids ...string) string {
		var b strings.Builder
		for _, id := range ids {
			b.WriteString("<Notification><Id>" + id + "</Id><sObject xsi:type=\"sf:Lead\"><sf:Id>00Q" + id + "</sf:Id></sObject></Notification>")
		}
		return `<e:Envelope xmlns:e="x"><e:Body><notifications><OrganizationId>00D</OrganizationId><SessionId>session-secret</SessionId>` + b.String() + `</notifications></e:Body></e:Envelope>`
	}
	one, two := saasEvents(t, "salesforce", "/s", note("1")), saasEvents(t, "salesforce", "/s", note("2", "1"))
	if len(one) != 1 || len(two) != 2 || one[0].CEID != two[1].CEID || two[0].CEID == two[1].CEID || one[0].ID != "1" || one[0].Subject != "00Q1" {
		t.Errorf("%+v\n%+v", one, two)
	}
	for _, e := range append(one, two...) {
		if strings.Contains(string(e.Payload), "session-secret") {
			t.Error("the session leaves the archive")
		}
	}
	feed := saasEvents(t, "youtube", "/y", `<feed xmlns="a"><entry><id>a</id></entry><entry><id>b</id></entry></feed>`)
	gone := saasEvents(t, "youtube", "/y", `<feed xmlns:at="t"><at:deleted-entry ref="yt:video:c" when="2026-01-01T00:00:00Z"/></feed>`)
	if len(feed) != 2 || feed[1].ID != "b" || feed[1].Type != "feed" || len(gone) != 1 || gone[0].ID != "yt:video:c" {
		t.Errorf("%+v\n%+v", feed, gone)
	}
}

// TestEncryptedEvent: an event is read with the encrypt key, by whichever of several, and
// is the same one however it was encrypted; without the key it goes out whole, told apart
// by its content, and nobody books by it.
func TestEncryptedEvent(t *testing.T) {
	d, _ := builtins(t).Get("feishu")
	read := func(body string, keys ...string) Event {
		evs, err := d.Events(&Request{Method: "POST", Target: []byte("/f"), Body: []byte(body), ReceivedAt: sampleNow, Secrets: Credentials{"encrypt_keys": keys}})
		if err != nil || len(evs) != 1 {
			t.Fatal(evs, err)
		}
		return evs[0]
	}
	const inside = `{"schema":"2.0","header":{"event_id":"e1","event_type":"im.message.receive_v1","token":"verification"},"event":{}}`
	a, b := read(sealCBC("key", "0123456789abcdef", inside), "new", "key"), read(sealCBC("key", "fedcba9876543210", inside), "key")
	if a.ID != "e1" || a.Canonical != "feishu.im.message.receive_v1" || a.CEID != b.CEID || len(a.Problems) > 0 || strings.Contains(string(a.Payload), "verification") || !strings.Contains(string(a.Payload), `"e1"`) {
		t.Errorf("%+v %s", a, a.Payload)
	}
	c, e := read(sealCBC("key", "0123456789abcdef", inside), "other"), read(sealCBC("key", "fedcba9876543210", inside))
	if c.Canonical != "feishu.event" || !c.NeedsFetch || len(c.Problems) == 0 || c.CEID == e.CEID || c.CEID == "" {
		t.Errorf("%+v", c)
	}
	for _, bad := range []string{"AAAA", "!", strings.Repeat("A", 64)} {
		if _, ok := OpenCBC([]byte("key"), []byte(bad)); ok {
			t.Errorf("%s was opened", bad)
		}
	}
}

// sealCBC encrypts as Feishu does.
func sealCBC(key, iv, text string) string {
	sum := sha256.Sum256([]byte(key))
	pad := aes.BlockSize - len(text)%aes.BlockSize
	plain := append([]byte(text), bytes.Repeat([]byte{byte(pad)}, pad)...)
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		panic(err)
	}
	cipher.NewCBCEncrypter(block, []byte(iv)).CryptBlocks(plain, plain)
	return `{"encrypt":"` + base64.StdEncoding.EncodeToString(append([]byte(iv), plain...)) + `"}`
}

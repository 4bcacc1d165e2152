package forward

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/archive"
	"penstock/provider"
)

// TestPackedIsTheSameRecord: a rendered message makes the bytes that its parts make, and has
// their fingerprint: a batch of a former build is encoded again to the same CRC.
func TestPackedIsTheSameRecord(t *testing.T) {
	for _, body := range []string{"", `{"a":1}`, strings.Repeat("x", 70_000)} {
		x := rendering{d: &archive.Delivery{Seq: 7, ID: "01J00000000000000000000007", Source: "s", ReceivedAt: time.UnixMilli(1_790_000_000_123), Body: []byte(body)},
			info: &SourceInfo{Provider: "p"}, e: &provider.Event{CEID: "id", Type: "t", Subject: strings.Repeat("ї", 100), Payload: []byte(body), PayloadJSON: true}, typ: "payment.captured", replay: "job", dead: "why"}
		m := x.render("topic")
		if len(m.headers()) != 15 || m.packed == nil {
			t.Fatalf("%d headers, packed in %d bytes", len(m.headers()), len(m.packed))
		}
		for range 60 { // the number of headers outgrows its byte
			samePacked(t, &m)
			m.addHeader("another", "header")
		}
		samePacked(t, &m)
		if hs := m.headers(); hs[len(hs)-1].Key != "another" || string(hs[len(hs)-1].Value) != "header" || string(hs[1].Value) != "id" {
			t.Errorf("headers are %q", hs)
		}
	}
}

func samePacked(t *testing.T, m *Message) {
	t.Helper()
	loose := &Message{Topic: m.Topic, Key: slices.Clone(m.Key), Value: slices.Clone(m.Value), Headers: m.headers(), Time: m.Time}
	if got, want := appendRecord(nil, m, 300, 4), appendRecord(nil, loose, 300, 4); !bytes.Equal(got, want) {
		t.Fatalf("packed it is\n%q\nloose\n%q", got, want)
	}
	if n := len(appendRecord(nil, m, 1<<40, 1<<20)); n > m.size() {
		t.Errorf("a record of %d bytes counts as %d", n, m.size())
	}
	if m.fingerprint() != loose.fingerprint() || m.fingerprint() == 0 {
		t.Errorf("fingerprint is %x packed and %x loose", m.fingerprint(), loose.fingerprint())
	}
}

// TestUnloadLetsGo: what is put aside keeps its key and nothing else of the message, and
// what counts against the bound is all of it, headers too.
func TestUnloadLetsGo(t *testing.T) {
	m := &Message{Topic: "t"}
	h := headerPacker{}
	h.put("ce_id", strings.Repeat("h", 5000))
	m.pack("key", make([]byte, 3000), h.b, h.n)
	ev := &parcel{}
	p := &Pump{seed: maphash.MakeSeed()}
	p.attach(ev, m)
	if ev.size < 8000 {
		t.Errorf("it counts as %d bytes", ev.size)
	}
	if freed := ev.unload(); freed < 8000 || ev.msg != nil || ev.size != 0 {
		t.Errorf("%d bytes freed, message %v, size %d", freed, ev.msg, ev.size)
	}
	if string(ev.key) != "key" || &ev.key[0] == &m.Key[0] {
		t.Errorf("key %q stands in the message's memory", ev.key)
	}
}

package forward

import (
	"bytes"
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

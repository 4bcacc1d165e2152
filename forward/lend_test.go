package forward

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"penstock/archive"
	"penstock/provider"
)

// TestNothingIsKeptOfALentDelivery: the log's reader uses a delivery's memory again for the
// next one, so neither a message nor what the outcome says may point into it. Every sample
// of every provider is tried.
func TestNothingIsKeptOfALentDelivery(t *testing.T) {
	cat, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range cat.Names() {
		def, _ := cat.Get(name)
		for _, s := range def.SampleTypes() {
			r, err := def.Sample(s.Type, provider.SampleParams{Now: time.Unix(1780000000, 0)})
			if err != nil {
				t.Fatalf("%s %s: %v", name, s.Type, err)
			}
			d := &archive.Delivery{Seq: 7, ID: "01J00000000000000000000007", ReceivedAt: r.ReceivedAt, Source: name, Provider: name, Verdict: archive.Accepted,
				Method: r.Method, Target: slices.Clone(r.Target), Header: slices.Clone(r.Header), Body: slices.Clone(r.Body)}
			info := &SourceInfo{Name: name, Provider: name, Definition: def}
			evs, err := readEvents(info, d)
			if err != nil {
				t.Fatalf("%s %s: %v", name, s.Type, err)
			}
			var messages []Message
			said := func() (all []string) {
				for i := range evs {
					e := evs[i]
					e.Payload = nil                                           // it is a part of the body, and rendered at once
					text, err := json.Marshal([]any{e, fieldsOf(d, &e, "t")}) // which follows pointers
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, string(text))
				}
				return all
			}
			for i := range evs {
				x := rendering{d: d, info: info, e: &evs[i], typ: typeOf(info, &evs[i]), verified: "x:1"}
				messages = append(messages, x.render("t"))
			}
			was := said()
			var packed [][]byte
			for i := range messages {
				packed = append(packed, slices.Clone(messages[i].packed))
			}
			for _, lent := range [][]byte{d.Target, d.Header, d.Body} {
				for i := range lent {
					lent[i] = '!'
				}
			}
			for i, is := range said() {
				if is != was[i] {
					t.Errorf("%s %s: what was read changed with the memory it was read from:\n%s\n%s", name, s.Type, was[i], is)
				}
				if !bytes.Equal(messages[i].packed, packed[i]) {
					t.Errorf("%s %s: the message changed with the delivery's memory", name, s.Type)
				}
				n++
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d events were tried", n)
	}
}

package forward

import (
	"fmt"
	"reflect"
	"testing"

	"penstock/archive"
)

// TestKnown: what the pump hands over is what the index would read itself, and it is said of
// nothing else.
func TestKnown(t *testing.T) {
	for _, kind := range []string{KindKafka, KindHTTP} {
		p := testPump(t)
		p.kind, p.o.HTTP = kind, &HTTPOptions{}
		info := &SourceInfo{Name: "s", Provider: "prov", Definition: fakeDef{}, LiveOnly: true}
		p.o.Source = func(uint64, uint64) (*SourceInfo, error) { return info, nil }
		of := func(seq uint64, items int) *archive.Delivery {
			return &archive.Delivery{Seq: seq, ID: "01J00000000000000000000007", Source: "s", Provider: "prov", Verdict: archive.Accepted, Method: "POST",
				Body: fmt.Appendf(nil, `{"id":"e%d","key":"k%d","items":%d,"test":true}`, seq, seq, items)}
		}
		if _, ok := p.Known(0); ok {
			t.Errorf("%s: seq 0 is known", kind)
		}
		for seq := uint64(1); seq <= knownMax+10; seq++ {
			p.read(of(seq, int(seq%3)), nil)
		}
		refused := of(3, 1)
		refused.Seq, refused.Verdict = 3|archive.QuarantineBit, archive.Rejected
		p.read(refused, nil)
		for _, seq := range []uint64{11, 12, 13, knownMax, knownMax + 10} {
			want, _ := Fields(of(seq, int(seq%3)), info)
			if got, ok := p.Known(seq); !ok || !reflect.DeepEqual(got, want) || want.EventID == "" {
				t.Errorf("%s: seq %d has %+v (%v), want %+v", kind, seq, got, ok, want)
			}
		}
		for _, seq := range []uint64{0, 3, 10, knownMax + 11, 3 | archive.QuarantineBit} {
			if f, ok := p.Known(seq); ok {
				t.Errorf("%s: seq %d is known: %+v", kind, seq, f)
			}
		}
	}
}

package archive

import (
	"reflect"
	"testing"
	"time"
)

// TestReaderSkims: a reader that skims sees every record, with what Skim promises.
func TestReaderSkims(t *testing.T) {
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true})
	for n := range 20 {
		d := testDelivery(n)
		mustAppend(t, a, d)
		minor := int64(n)
		o := Outcome{Delivery: d.Seq, Item: 1, Items: 2, Kind: Held, At: time.Unix(1_790_000_000, 0).UTC(), Reason: "paused", Of: "twin",
			Sink: "kafka:x", Topic: "t", Partition: 3, Offset: 4, Replay: "job", Identity: Identity{1}, Fields: Fields{CEID: "c", AmountMinor: &minor}}
		if err := a.AppendOutcomes([]Outcome{o}); err != nil {
			t.Fatal(err)
		}
	}
	r := a.NewReader(1)
	defer r.Close()
	r.Skim(true, true)
	for _, full := range readAll(t, a.NewReader(1)) {
		rec, ok, err := r.TryNext()
		if err != nil || !ok || rec.Seq != full.Seq {
			t.Fatalf("record %d: got %d, %t, %v", full.Seq, rec.Seq, ok, err)
		}
		switch {
		case full.Delivery != nil:
			d := full.Delivery
			want := &Delivery{Seq: d.Seq, ReceivedAt: d.ReceivedAt, Source: d.Source, Epoch: d.Epoch, Verdict: d.Verdict}
			if !reflect.DeepEqual(rec.Delivery, want) {
				t.Errorf("delivery %+v, want %+v", rec.Delivery, want)
			}
		case full.Outcome != nil:
			want := *full.Outcome
			want.Of, want.Identity, want.Content, want.Fields = "", Identity{}, Identity{}, Fields{}
			if !reflect.DeepEqual(*rec.Outcome, want) {
				t.Errorf("outcome %+v, want %+v", *rec.Outcome, want)
			}
		case !reflect.DeepEqual(rec, full):
			t.Errorf("%+v, want %+v", rec, full)
		}
	}
	if _, ok, err := r.TryNext(); ok || err != nil {
		t.Errorf("more records (%t) or an error (%v) behind the last", ok, err)
	}
}

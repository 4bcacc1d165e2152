package archive

import (
	"context"
	"testing"
	"time"
)

// TestSubscribedMeanwhile: who subscribes and then looks gets a row one way or the other,
// also while it is on its way into the index.
func TestSubscribedMeanwhile(t *testing.T) {
	reading, goOn := make(chan struct{}), make(chan struct{})
	x := testIndex(t, t.TempDir(), indexOptions{Extract: func(*Delivery) (Fields, bool) {
		close(reading)
		<-goOn
		return Fields{OrderID: "o"}, true
	}})
	d := &Delivery{Seq: 1, ReceivedAt: fakeEpoch, Source: "s", Verdict: Accepted, Method: "POST"}
	d.ID = makeID(d.ReceivedAt, 7, d.Seq).String()
	given := false
	followed := make(chan error, 1)
	go func() {
		followed <- x.follow(t.Context(), func(context.Context) (Record, error) {
			if given {
				return Record{}, errEnd
			}
			given = true
			return Record{Seq: 1, Delivery: d}, nil
		})
	}()
	<-reading
	rows, cancel := x.subs.add()
	defer cancel()
	page, err := x.query(t.Context(), &Filter{})
	if err != nil || len(page.Rows) != 0 {
		t.Fatalf("it is there already: %v %v", page.Rows, err)
	}
	close(goOn)
	select {
	case r := <-rows:
		if r.Row.ID != d.ID || r.Row.OrderID != "o" {
			t.Errorf("got %+v", r.Row)
		}
	case <-time.After(20 * time.Second):
		t.Error("the row came neither way")
	}
	<-followed
}

package admin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

// While somebody looks, the next wait in turn, and no longer than their requests may take;
// full text does not wait for lists, nor they for it.
func TestLane(t *testing.T) {
	l := newLane(newFakeArchive(), 0)
	leave := make([]func(), cap(l.slots))
	for i := range leave {
		var err error
		if leave[i], err = l.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Query(ctx, archive.Filter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a list beside others: %v", err)
	}
	if _, err := l.Counts(ctx, time.Time{}, time.Time{}, 0, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a count beside others: %v", err)
	}
	if _, err := l.Query(t.Context(), archive.Filter{Text: "x"}); err != nil {
		t.Errorf("full text beside others: %v", err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := l.Query(t.Context(), archive.Filter{})
		waited <- err
	}()
	for _, f := range leave {
		f()
	}
	if err := <-waited; err != nil {
		t.Errorf("its turn comes: %v", err)
	}
	for len(l.slots) != 0 { // until those that rest are free again
		time.Sleep(time.Millisecond)
	}
}

// While others wait a list looks less far, and a turn is followed by a rest of its length.
func TestLaneSparesTheMachine(t *testing.T) {
	a := newFakeArchive()
	l := newLane(a, 2)
	var rests []time.Duration
	var free []func()
	l.after = func(d time.Duration, f func()) { rests, free = append(rests, d), append(free, f) }
	budget := func() time.Duration {
		t.Helper()
		if _, err := l.Query(t.Context(), archive.Filter{Budget: listBudget}); err != nil {
			t.Fatal(err)
		}
		return a.asked.Budget
	}
	turn := func(took time.Duration) {
		l.slots <- struct{}{}
		l.leave(took)
	}
	if b := budget(); b != listBudget {
		t.Errorf("alone a list may take %v", b)
	}
	turn(time.Second)
	if len(rests) != 0 || len(l.slots) != 0 {
		t.Errorf("with nobody waiting the slot rested %v", rests)
	}
	l.waiting.Store(1)
	if b := budget(); b != crowdBudget {
		t.Errorf("while others wait a list may take %v", b)
	}
	for _, f := range free { // of the query, if the machine was slow
		f()
	}
	rests, free = nil, nil
	turn(restAbove - 1)
	turn(5 * time.Millisecond)
	if len(rests) != 1 || rests[0] != 5*time.Millisecond || len(l.slots) != 1 {
		t.Fatalf("after turns of less than 1 and of 5 ms it rested %v, %d slots held", rests, len(l.slots))
	}
	free[0]()
	turn(time.Second)
	if len(rests) != 2 || rests[1] != restMost {
		t.Errorf("after a second it rested %v", rests)
	}
}

// What the index says of all sources is asked once for all tabs, and again when it is old.
func TestSourcesAreMeasuredOnce(t *testing.T) {
	w := newWorld(t, nil)
	look := func() map[string]sourceView {
		t.Helper()
		list, err := w.server.o.Sources.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return w.server.measure(t.Context(), list)
	}
	if look()["stripe"].Last == nil {
		t.Fatal("the source's last delivery is not known")
	}
	w.server.measured.at = time.Now().Add(time.Hour)
	w.archive.err = archive.ErrIndex
	if look()["stripe"].Last == nil {
		t.Error("a second tab asked the index again")
	}
	w.server.measured.at = time.Time{}
	if look()["stripe"].Last != nil {
		t.Error("an old answer is still shared")
	}
}

// The last page of a view leads nowhere, and says that nothing is there.
func TestLastPage(t *testing.T) {
	w := newWorld(t, nil)
	w.archive.order, w.archive.pages = nil, 1
	rec := w.call("GET", "/?order_id=not-there", viewerToken, "")
	w.want(rec, 200, "No delivery fits these filters.")
	if strings.Contains(rec.Body.String(), `rel="next"`) {
		t.Error("the last page has a next one")
	}
}

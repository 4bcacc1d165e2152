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
	l := newLane(newFakeArchive())
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
	if len(l.slots) != 0 {
		t.Errorf("%d slots are still held", len(l.slots))
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

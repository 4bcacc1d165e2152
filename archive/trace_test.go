package archive

import (
	"sync"
	"testing"
)

// TestCommitsAreTraced: every record is in one of the commits that are told.
func TestCommitsAreTraced(t *testing.T) {
	var mu sync.Mutex
	records := map[string]int{}
	a := mustOpen(t, t.TempDir(), Options{Trace: func(s Stage) {
		mu.Lock()
		defer mu.Unlock()
		records[s.Name] += s.Records
		if s.Err != nil || s.Start.IsZero() || s.End.Before(s.Start) || s.Bytes <= 0 {
			t.Errorf("%+v", s)
		}
	}})
	for i := range 20 {
		mustAppend(t, a, testDelivery(i))
	}
	if err := a.Close(); err != nil { // the last is told behind its ack
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if records["archive.commit"] < 20 {
		t.Errorf("told of %v", records)
	}
}

package notify

// told knows the events of late where no sink is configured: a delivery is kept each time
// that its provider sends it, and its events happened once. With a sink the outcomes say so.
// The zero value knows nothing. The engine's mutex guards it.
type told struct {
	ids   map[uint64]struct{}
	order []uint64 // the same, in a ring
	next  int
	whole bool // what came before was read to its end
}

const (
	maxTold = 100_000 // events; what comes again later than so many others counts as new
	// toldRecords is how much of the log is read again after a start, to know them.
	toldRecords = 50_000
)

// begin says where to read from, to know what came before from.
func (t *told) begin(from uint64) uint64 {
	if t.whole {
		return from
	}
	if t.ids == nil {
		t.ids = map[uint64]struct{}{}
	}
	return from - min(from, toldRecords)
}

// reached notes whether the log was read again to where the last life was.
func (t *told) reached(end bool) { t.whole = t.whole || end && t.ids != nil }

// again reports whether the event came before, and keeps it in mind.
func (t *told) again(ev *Event) bool {
	if ev.ID == 0 || t.ids == nil {
		return false
	}
	if _, ok := t.ids[ev.ID]; ok {
		return true
	}
	t.ids[ev.ID] = struct{}{}
	if len(t.order) < maxTold {
		t.order = append(t.order, ev.ID)
		return false
	}
	delete(t.ids, t.order[t.next])
	t.order[t.next] = ev.ID
	t.next = (t.next + 1) % maxTold
	return false
}

// mark turns those of a delivery's events that came before into duplicates.
func (t *told) mark(ev *Event) {
	if ev.Outcome != Kept {
		return
	}
	for _, one := range append([]*Event{ev}, ev.Others...) {
		if t.again(one) {
			one.Outcome = "duplicate"
		}
	}
}

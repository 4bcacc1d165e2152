package archive

const (
	// maxCached bounds the entries kept for outcomes that come in a later batch, as long as
	// none come; maxWaiting where they do: a pump that lags is that far behind, and an entry
	// that is gone is read again, with its outcomes (BenchmarkIndexWrite, 15,000 late: 58 and
	// 69 us a delivery, 54 and 64 so). A batch exceeds both, and there are two generations.
	maxCached  = 4096
	maxWaiting = 8192
)

// waiting are the entries in memory: of the batch, and those that wait for an outcome. It is
// a cache in two halves: what was not asked for while the younger one filled up goes.
type waiting struct {
	young, old map[ref]*live
	told       bool // outcomes came since the last turn
}

// get gives the entry of a delivery, nil where it is not in memory.
func (c *waiting) get(r ref) *live {
	l := c.young[r]
	if l == nil {
		if l = c.old[r]; l != nil {
			delete(c.old, r)
			c.young[r] = l
		}
	}
	return l
}

func (c *waiting) put(l *live) {
	if c.young == nil {
		c.young = map[ref]*live{}
	}
	c.young[l.e.ref] = l
}

func (c *waiting) drop(r ref) {
	delete(c.young, r)
	delete(c.old, r)
}

// committed lets go of those that changed in a batch and are done.
func (c *waiting) committed(changed []*live) {
	for _, l := range changed {
		if !l.waits() {
			c.drop(l.e.ref)
		}
		c.told = c.told || len(l.states) > 0
	}
	most := maxCached
	if c.told {
		most = maxWaiting
	}
	if len(c.young) > most {
		c.old, c.young, c.told = c.young, map[ref]*live{}, false
	}
}

// waits says whether outcomes of the delivery are still to come.
func (l *live) waits() bool {
	if l.e.row.Verdict != Accepted.String() {
		return false
	}
	done := 0
	for i := range l.states {
		if l.states[i].kind != Held {
			done++
		}
	}
	return done == 0 || done < l.events
}

package archive

import (
	"testing"
	"time"
)

// A late index has the right of all until it has caught up; one that has nothing to read, or
// from whose clock an hour was taken, is not late.
func TestIsLate(t *testing.T) {
	for _, c := range []struct {
		lag  uint64
		age  time.Duration
		was  bool
		want bool
	}{
		{1, indexLate - 1, false, false}, {1, indexLate, false, true}, {1, indexCaughtUp, true, true}, {1, indexCaughtUp - 1, true, false},
		{0, time.Hour, true, false}, {1, -time.Hour, true, false},
	} {
		if got := isLate(c.lag, c.age, c.was); got != c.want {
			t.Errorf("%d records behind, the newest %v old, late before %t: %t", c.lag, c.age, c.was, got)
		}
	}
}

package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// The faults that crashFS knows beside errInjected (EIO; of a write any part is done) and
// errCrashed (the machine is off; of a write any part is done).
var (
	// errCrashedAfter: the operation is done, and then the machine is off.
	errCrashedAfter = errors.New("the machine is off after this")
	errNoSpace      = &fs.PathError{Op: "injected", Path: "-", Err: syscall.ENOSPC}
	// errShort: a write that takes some bytes, not none and not all.
	errShort = &fs.PathError{Op: "injected short", Path: "-", Err: syscall.EFBIG}
)

// cellFaults are the columns of the table of faults, cellOps its rows.
var cellFaults = []error{errInjected, errNoSpace, errShort, errCrashed, errCrashedAfter}

var cellNames = map[error]string{errInjected: "EIO", errNoSpace: "ENOSPC", errShort: "short", errCrashed: "crash before", errCrashedAfter: "crash after"}

// cellOps lists the operations of an FS that change something. Reads, lists, locks and the
// free space are not among them: nothing is lost by them.
var cellOps = []string{"create", "write", "sync", "truncate", "rename", "link", "remove", "syncdir", "mkdir"}

// cellBuckets are the lowest n of each bucket.
var cellBuckets = []int{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33}

func bucketOf(n int) int {
	i, found := slices.BinarySearch(cellBuckets, n)
	if !found {
		i--
	}
	return i
}

func bucketName(i int) string {
	if i+1 == len(cellBuckets) {
		return fmt.Sprintf("%d+", cellBuckets[i])
	}
	if last := cellBuckets[i+1] - 1; last > cellBuckets[i] {
		return fmt.Sprintf("%d-%d", cellBuckets[i], last)
	}
	return fmt.Sprint(cellBuckets[i])
}

// isFault says whether an error comes from a fault of ours.
func isFault(err error) bool {
	return slices.ContainsFunc(cellFaults, func(f error) bool { return errors.Is(err, f) })
}

type cell struct {
	op     string
	bucket int
	fault  error
}

// cells counts which fault met which call of which operation.
type cells struct {
	mu   sync.Mutex
	hits map[cell]int
}

func newCells() *cells { return &cells{hits: map[cell]int{}} }

func (c *cells) hit(op string, n int, fault error) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range cellFaults {
		if errors.Is(fault, f) {
			c.hits[cell{op, bucketOf(n), f}]++
			return
		}
	}
}

// occurs says whether a cell can be hit where an operation has so many calls in a life.
func (c cell) occurs(calls map[string]int) bool {
	// Only a write has a length.
	return (!errors.Is(c.fault, errShort) || c.op == "write") && cellBuckets[c.bucket] <= calls[c.op]
}

// everyCell lists all cells that can occur.
func everyCell(calls map[string]int) (list []cell) {
	for _, op := range cellOps {
		for b := range cellBuckets {
			for _, f := range cellFaults {
				if c := (cell{op, b, f}); c.occurs(calls) {
					list = append(list, c)
				}
			}
		}
	}
	return list
}

// require prints the table and fails the test for each cell that is empty. rest says why the
// cells of later calls may be.
func (c *cells) require(t *testing.T, calls map[string]int, rest string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-9s %-12s", "operation", "fault")
	for i := range cellBuckets {
		fmt.Fprintf(&b, "%7s", bucketName(i))
	}
	empty, all := 0, 0
	for _, op := range cellOps {
		for _, f := range cellFaults {
			if errors.Is(f, errShort) && op != "write" {
				continue
			}
			fmt.Fprintf(&b, "\n%-9s %-12s", op, cellNames[f])
			for i := range cellBuckets {
				k := cell{op, i, f}
				switch n := c.hits[k]; {
				case n > 0:
					fmt.Fprintf(&b, "%7d", n)
				case k.occurs(calls):
					fmt.Fprintf(&b, "%7s", "EMPTY")
				default:
					fmt.Fprintf(&b, "%7s", "-")
				}
				if k.occurs(calls) {
					if all++; c.hits[k] == 0 {
						empty++
					}
				}
			}
		}
	}
	t.Logf("%s\n%d cells, %d empty; -: %s", b.String(), all, empty, rest)
	if empty > 0 {
		t.Errorf("%d of %d cells were never hit", empty, all)
	}
}

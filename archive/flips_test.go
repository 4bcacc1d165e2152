package archive

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// flips is how many bits a test flips: PENSTOCK_FLIPS, or few enough for every run.
func flips(t *testing.T, def int) int {
	if v := os.Getenv("PENSTOCK_FLIPS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("PENSTOCK_FLIPS=%q: %v", v, err)
		}
		return n
	}
	return def
}

// flipWorld is an archive at rest of both logs and the cursors, and all it ever said.
type flipWorld struct {
	disk  *crashFS
	said  map[string]*Delivery
	state map[string]string
	files []string
	live  map[string]int64 // how much of a file means something
	seal  map[string]int64 // where its footer begins
}

func newFlipWorld(t *testing.T, rng *rand.Rand) *flipWorld {
	w := &flipWorld{disk: newCrashFS(rng), said: map[string]*Delivery{}, state: map[string]string{}, live: map[string]int64{}, seal: map[string]int64{}}
	// Two lives: sealed segments, one that a restart left, and a newest one.
	for life := range 2 {
		a := mustOpen(t, worldDir, Options{FS: w.disk, NoIndex: true, SegmentBytes: minSegmentBytes})
		for n := range 60 {
			d := testDelivery(life*1000 + n)
			mustAppend(t, a, d)
			w.said[d.ID] = d
			if n%10 == 0 {
				k, v := fmt.Sprintf("key-%d-%d", life, n), fmt.Sprintf("value %d", n)
				if err := a.State().Commit(Change{k, []byte(v)}); err != nil {
					t.Fatal(err)
				}
				w.state[k] = v
			}
			if n%4 == 0 {
				r := testDelivery(life*1000 + 500 + n)
				r.Verdict, r.Reason = Rejected, "signature_mismatch"
				if _, err := a.Reject(r); err != nil {
					t.Fatal(err)
				}
				w.said[r.ID] = r
			}
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name := range w.disk.live {
		if path.Base(name) != lockName && path.Ext(name) != ".spare" {
			w.files = append(w.files, name)
		}
	}
	sort.Strings(w.files)
	for _, name := range w.files {
		data := w.disk.live[name].data
		h, err := readHeader(bytes.NewReader(data))
		if err != nil {
			continue // spare files: nothing in them was ever said
		}
		sc := &scanner{src: bytes.NewReader(data), tag: h.tag, off: segmentHead, end: int64(len(data))}
		w.live[name] = segmentHead
		for it, err := sc.next(); err == nil; it, err = sc.next() {
			// The closing mark of a file says only that all before it was synced.
			if it.isFrame() && it.frame.typ != typeSync && !(it.frame.typ == typeState && it.frame.size == frameHead+1) {
				w.live[name] = it.frame.off + it.frame.size
				if it.frame.typ == typeSeal {
					w.seal[name] = it.frame.off
				}
			}
		}
	}
	return w
}

// TestManyFlips flips one bit anywhere in the files of an archive at rest: headers and
// both their copies, records, padding, footers, cursors. Each flip in what means
// something is named by the check, and nobody is ever given a byte that was not stored:
// not by id, not in order, not by a state key. PENSTOCK_FLIPS=10000 does the full number.
func TestManyFlips(t *testing.T) {
	saved := secondLook
	secondLook = 0
	defer func() { secondLook = saved }()
	rng := seeded(t)
	w := newFlipWorld(t, rng)
	if got, err := check(w.disk, worldDir, nil); err != nil || !got.Sound() {
		t.Fatalf("before any flip: %v %q", err, got.Damage)
	}
	places := map[string]int{}
	for range flips(t, 1000) {
		name := w.files[rng.IntN(len(w.files))]
		live, ok := w.live[name]
		if !ok {
			continue
		}
		off := rng.Int64N(live)
		if rng.IntN(4) == 0 {
			off = rng.Int64N(segmentHead)
		}
		bit := byte(1) << rng.IntN(8)
		w.disk.live[name].data[off] ^= bit
		places[w.judge(t, name, off)]++
		w.disk.live[name].data[off] ^= bit
	}
	t.Logf("%v", places)
	for _, place := range []string{"header", "copy", "header block", "record", "footer", "cursors", "quarantine"} {
		if places[place] == 0 {
			t.Errorf("no flip hit: %s (%v)", place, places)
		}
	}
}

// judge looks at the archive with one bit flipped, and says what the bit was in.
func (w *flipWorld) judge(t *testing.T, name string, off int64) string {
	t.Helper()
	at := fmt.Sprintf("a bit at offset %d of %s", off, name)
	res, err := check(w.disk, worldDir, nil)
	if err != nil {
		t.Fatalf("%s: check: %v", at, err)
	}
	if res.Sound() {
		t.Fatalf("%s: the check finds nothing; %s", at, w.frames(name))
	}
	if !strings.Contains(strings.Join(res.Damage, "\n"), path.Base(name)) {
		t.Fatalf("%s: the check names another file: %q", at, res.Damage)
	}
	disk := w.disk.clone()
	a, err := Open(worldDir, Options{FS: disk, NoIndex: true, SegmentBytes: minSegmentBytes})
	if err != nil {
		t.Fatalf("%s: open: %v", at, err)
	}
	defer a.Close()
	lost := 0
	for id, d := range w.said {
		got, err := a.Get(id)
		if errors.Is(err, ErrCorrupt) {
			lost++
			continue
		}
		if err != nil {
			t.Fatalf("%s: get seq=%d: %v", at, d.Seq, err)
		}
		sameDelivery(t, got, d)
	}
	if lost > 1 {
		t.Fatalf("%s: %d deliveries cannot be read any more", at, lost)
	}
	if lost > 0 && a.Stats().Damage == 0 {
		t.Fatalf("%s: what was met is not in the stats", at)
	}
	for _, r := range []*Reader{a.NewReader(0), a.NewRejectedReader(0)} {
		for _, rec := range readAll(t, r) {
			if rec.Delivery != nil {
				sameDelivery(t, rec.Delivery, w.said[rec.Delivery.ID])
			}
		}
	}
	for k, want := range w.state {
		if v, ok := a.State().Get(k); ok && string(v) != want {
			t.Fatalf("%s: state %s is %q, want %q", at, k, v, want)
		}
	}
	return w.place(name, off)
}

func (w *flipWorld) place(name string, off int64) string {
	switch {
	case off < headerSize:
		return "header"
	case off >= headerCopy && off < headerCopy+headerSize:
		return "copy"
	case off < segmentHead:
		return "header block"
	case w.seal[name] > 0 && off >= w.seal[name]:
		return "footer"
	case path.Base(name) == stateName:
		return "cursors"
	case strings.Contains(name, quarantineDir):
		return "quarantine"
	}
	return "record"
}

// frames lists what stands in a file, for a failure's message.
func (w *flipWorld) frames(name string) string {
	data := w.disk.live[name].data
	h, err := readHeader(bytes.NewReader(data))
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	sc := &scanner{src: bytes.NewReader(data), tag: h.tag, off: segmentHead, end: int64(len(data))}
	for it, err := sc.next(); err == nil; it, err = sc.next() {
		fmt.Fprintf(&b, "[%d+%d type %d base %d; bad %d+%d] ", it.frame.off, it.frame.size, it.frame.typ, it.frame.base, it.region.off, it.region.size)
	}
	return b.String()
}

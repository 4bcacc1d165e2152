package forward

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"penstock/archive"
)

// nopDedupe lets everything through.
type nopDedupe struct{}

func (nopDedupe) Claim(_ context.Context, cs []Claim, out []Answer) {
	for i := range cs {
		out[i] = Answer{Verdict: claimPublish, ID: cs[i].ID}
	}
}
func (nopDedupe) Force(Claim)         {}
func (nopDedupe) Confirm([]Claim)     {}
func (nopDedupe) Release([]Claim)     {}
func (nopDedupe) Unconfirmed() uint64 { return 0 }

// scripted answers by delivery: parks what it is told to, and notes what it is told.
type scripted struct {
	nopDedupe
	mu        sync.Mutex
	parked    map[string]bool
	forced    int
	confirmed []Claim
}

func (s *scripted) Claim(_ context.Context, cs []Claim, out []Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range cs {
		out[i] = Answer{Verdict: claimPublish, ID: cs[i].ID}
		if s.parked[cs[i].Delivery] {
			out[i].Verdict = claimPark
		}
	}
}

func (s *scripted) Force(Claim) {
	s.mu.Lock()
	s.forced++
	s.mu.Unlock()
}

func (s *scripted) Confirm(cs []Claim) {
	s.mu.Lock()
	s.confirmed = append(s.confirmed, cs...)
	s.mu.Unlock()
}

// TestParked: a parked event holds back its key and nothing else, and is published after
// ParkFor at the latest.
func TestParked(t *testing.T) {
	s := &scripted{parked: map[string]bool{}}
	r := newRig(t, func(o *Options) { o.Dedupe = s; o.ParkFor = 3 * time.Second })
	first := r.put("s", body{ID: "e0", Key: "k"})
	s.parked[first.ID] = true
	for i := 1; i < 100; i++ {
		key := "k"
		if i%2 == 0 {
			key = "other" + strconv.Itoa(i%3)
		}
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: key})
	}
	r.start()
	r.until("other keys pass", func() bool { return len(r.k.all()) == 49 })
	time.Sleep(300 * time.Millisecond)
	if n := len(r.k.all()); n != 49 {
		t.Errorf("%d events passed a parked one of other keys, want 49", n)
	}
	s.mu.Lock()
	s.parked[first.ID] = false
	s.mu.Unlock()
	r.drained()
	if n := len(r.k.all()); n != 100 || s.forced != 0 {
		t.Errorf("%d events, %d forced", n, s.forced)
	}
	checkOrder(t, r.k.all())

	late := r.put("s", body{ID: "e100", Key: "k"})
	s.mu.Lock()
	s.parked[late.ID] = true
	s.mu.Unlock()
	r.put("s", body{ID: "e101", Key: "k"})
	r.drained()
	if n := len(r.k.all()); n != 102 || s.forced > 1 {
		t.Errorf("%d events, %d forced", n, s.forced)
	}
	checkOrder(t, r.k.all())
	r.stop()
}

// TestConfirmsAreRemade: what was synced but perhaps not confirmed is handed over after a
// restart, before anything new is claimed.
func TestConfirmsAreRemade(t *testing.T) {
	s := &late{}
	r := newRig(t, func(o *Options) { o.Dedupe = s })
	r.start()
	for i := range 20 {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k"})
	}
	r.drained()
	time.Sleep(2 * cursorEvery)
	r.crash()
	s.mu.Lock()
	s.confirmed = nil
	s.mu.Unlock()
	r.put("s", body{ID: "new", Key: "k"})
	r.start()
	r.drained()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.confirmed) < 20 {
		t.Fatalf("%d confirms are made again, want 20", len(s.confirmed))
	}
	for _, c := range s.confirmed[:20] {
		if c.Delivery == "" || c.ID == (archive.Identity{}) || c.Window <= 0 || c.Outcome == 0 {
			t.Errorf("remade confirm %+v", c)
		}
	}
	if s.before != 20 {
		t.Errorf("%d confirms came before the first claim, want 20", s.before)
	}
	r.stop()
}

// late is a deduper whose Redis has taken no confirm yet.
type late struct {
	scripted
	before int
}

func (l *late) Unconfirmed() uint64 { return 1 }

func (l *late) Claim(ctx context.Context, cs []Claim, out []Answer) {
	l.mu.Lock()
	l.before = len(l.confirmed)
	l.mu.Unlock()
	l.scripted.Claim(ctx, cs, out)
}

func TestSeqList(t *testing.T) {
	var l seqList
	var want []ref
	for i := range 50000 {
		seq := uint64(1000 + i*3)
		if i%1000 == 7 {
			seq -= 500
		}
		r := ref{seq, i % 3}
		l.push(r)
		want = append(want, r)
	}
	slices.SortFunc(want, func(a, b ref) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.item, b.item)) })
	for i, w := range want {
		if i%1000 == 0 && !l.has(w) {
			t.Fatalf("%+v is not in it", w)
		}
		if i%777 == 0 {
			if low := l.lowest(); low > w.seq || low == 0 {
				t.Fatalf("lowest is %d, and %d is in it", low, w.seq)
			}
		}
		p, _ := l.peek()
		got, ok := l.pop()
		if !ok || got != w || p != w {
			t.Fatalf("entry %d is %+v, peeked %+v, want %+v", i, got, p, w)
		}
	}
	if _, ok := l.pop(); ok || l.n != 0 {
		t.Error("the list is not empty at its end")
	}
}

// TestLedger: what counts as unpublished, over kinds, several events, and order.
func TestLedger(t *testing.T) {
	l := newLedger(1)
	seq := uint64(0)
	add := func(r archive.Record) uint64 {
		seq++
		r.Seq = seq
		if r.Delivery != nil {
			r.Delivery.Seq = seq
		}
		l.add(&r)
		return seq
	}
	put := func(v archive.Verdict) uint64 { return add(archive.Record{Delivery: &archive.Delivery{Verdict: v}}) }
	out := func(of uint64, item, items int, k archive.OutcomeKind, replay string) {
		add(archive.Record{Outcome: &archive.Outcome{Delivery: of, Item: item, Items: items, Kind: k, Replay: replay}})
	}
	f := func(n int, oldest uint64) {
		t.Helper()
		if gotN, got := l.unpublished(); gotN != n || got != oldest {
			t.Errorf("%d unpublished from %d on, want %d from %d on", gotN, got, n, oldest)
		}
	}
	f(0, 0)
	a, _, b := put(archive.Accepted), put(archive.Challenge), put(archive.Accepted)
	f(2, a)
	out(a, 0, 1, archive.Held, "")
	f(2, a)
	out(b, 0, 3, archive.Published, "")
	out(b, 2, 3, archive.Duplicate, "")
	f(2, a)
	out(a, 0, 1, archive.Published, "job")
	f(2, a)
	out(a, 0, 1, archive.Dead, "")
	f(1, b)
	if l.state(ref{b, 1}) != stateNone || l.state(ref{b, 0}) != stateFinal || l.state(ref{a, 0}) != stateFinal {
		t.Error("states of events are wrong")
	}
	out(b, 1, 3, archive.Filtered, "")
	out(b, 1, 3, archive.Filtered, "") // said twice
	f(0, 0)
	for range 20000 {
		s := put(archive.Accepted)
		out(s, 0, 1, archive.Published, "")
	}
	if f(0, 0); len(l.chunks) > 2 || len(l.multi) > 0 {
		t.Errorf("%d chunks, %d multi for nothing", len(l.chunks), len(l.multi))
	}
}

// TestHeldKeepsItsPlace: what was held and is taken up again stands before a later event
// of its key that waits meanwhile, also when its outcome is still on its way to the disk.
func TestHeldKeepsItsPlace(t *testing.T) {
	r := newRig(t, nil)
	r.k.blocked["webhooks.s"] = "test"
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.fail = func([]archive.Outcome) error {
		once.Do(func() { close(held) })
		<-release
		return nil
	}
	r.put("s", body{ID: "e1", Key: "k"})
	r.put("s", body{ID: "e2", Key: "k"})
	r.put("s", body{ID: "e2", Key: "k"}) // waits for its twin
	r.start()
	<-held // both, and their outcomes hang
	r.k.set(func() { clear(r.k.blocked) })
	r.until("taken up again", func() bool {
		left := make(chan int)
		r.p.control <- func(c *core) {
			n := 0
			for _, g := range c.gates {
				n += g.list.n + len(g.pend)
			}
			go func() { left <- n }()
		}
		return <-left == 0
	})
	close(release)
	r.drained()
	if rs := r.k.all(); len(rs) != 2 {
		t.Errorf("%d records, want 2", len(rs))
	}
	checkOrder(t, r.k.all())
	r.stop()
}

// TestLedgerBehind: a ledger that has not read a delivery yet does not call it done; what
// is taken out of a gate would be dropped for good.
func TestLedgerBehind(t *testing.T) {
	l := newLedger(3)
	l.add(&archive.Record{Seq: 3, Delivery: &archive.Delivery{Seq: 3, Verdict: archive.Accepted}})
	for seq, done := range map[uint64]bool{2: true, 3: false, 4: false, 9999: false} {
		if got := l.state(ref{seq, 0}) == stateFinal; got != done {
			t.Errorf("delivery %d: done %v, want %v", seq, got, done)
		}
		if l.closed(seq) != done {
			t.Errorf("delivery %d: closed %v, want %v", seq, !done, done)
		}
	}
	c := newCore(context.Background(), &Pump{})
	c.p.led.Store(l)
	g := &gate{}
	g.list.push(ref{4, 0})
	if c.takeFrom(g) == nil {
		t.Error("a held event that the ledger has not seen is dropped")
	}
}

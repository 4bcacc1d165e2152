package dedupe

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"penstock/archive"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeIndex is a local index that a test fills by hand.
type fakeIndex struct {
	mu       sync.Mutex
	rows     map[archive.Identity]flight
	building bool
	indexed  uint64
}

func newIndex() *fakeIndex { return &fakeIndex{rows: map[archive.Identity]flight{}} }

func (f *fakeIndex) Evidence(id archive.Identity) (string, archive.Identity, time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.rows[id]
	return r.delivery, r.content, r.at, ok
}

func (f *fakeIndex) IndexReady() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.building
}

func (f *fakeIndex) Indexed() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.indexed
}

func (f *fakeIndex) set(id archive.Identity, fl flight) {
	f.mu.Lock()
	f.rows[id] = fl
	f.mu.Unlock()
}

func idOf(n int) (id archive.Identity) {
	copy(id[:], fmt.Sprintf("identity %07d", n))
	return id
}

func claimOf(n int, delivery string) Claim {
	return Claim{ID: idOf(n), Delivery: delivery, Window: time.Hour}
}

// open returns a running deduper; run = false leaves its background work out.
func open(t *testing.T, o Options, run bool) *Deduper {
	t.Helper()
	if o.Local == nil {
		o.Local = newIndex()
	}
	if o.Node == "" {
		o.Node = "n1"
	}
	if o.BatchTimeout == 0 {
		o.BatchTimeout = 5 * time.Second // a busy machine is not what these tests are about
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if run {
			_ = d.Run(ctx)
		} else if d.redis != nil {
			<-ctx.Done()
			_ = d.redis.close()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return d
}

func redisAt(addr string) *RedisOptions { return &RedisOptions{Addresses: []string{addr}} }

func ask(d *Deduper, cs ...Claim) []Answer {
	out := make([]Answer, len(cs))
	d.Claim(context.Background(), cs, out)
	return out
}

func want(t *testing.T, a Answer, verdict uint8, of string) {
	t.Helper()
	if a.Verdict != verdict || a.Of != of {
		t.Errorf("answer %d of %q (%s, unknown %t), want %d of %q", a.Verdict, a.Of, a.Reason, a.Unknown, verdict, of)
	}
}

func unknowns(d *Deduper) float64 {
	var m dto.Metric
	if err := d.met.unknown.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// TestTruth is the table of DESIGN 6: what each source says, and what follows.
func TestTruth(t *testing.T) {
	key := func(d *Deduper) string { return d.redis.key(idOf(1)) }
	content, other := archive.Identity{1}, archive.Identity{2}
	confirm := func(d *Deduper, delivery string, c archive.Identity) string {
		return "D:" + keyHash(key(d)) + ":" + delivery + ":" + hex.EncodeToString(c[:])
	}
	cases := []struct {
		name    string
		value   func(d *Deduper) string // in Redis
		index   *flight
		content archive.Identity
		verdict uint8
		of      string
		unknown bool
	}{
		{name: "nothing anywhere", verdict: Publish},
		{name: "own claim of a former life", value: func(d *Deduper) string { return d.redis.claimValue(key(d), "me") }, verdict: Publish},
		{name: "this node's claim of another delivery that is not in flight", value: func(d *Deduper) string { return d.redis.claimValue(key(d), "x") }, verdict: Publish},
		{name: "another node's claim", value: func(d *Deduper) string { return "P:" + keyHash(key(d)) + ":n2:x" }, verdict: Park, of: "x"},
		{name: "a confirm", value: func(d *Deduper) string { return confirm(d, "x", content) }, content: content, verdict: Duplicate, of: "x"},
		{name: "own confirm", value: func(d *Deduper) string { return confirm(d, "me", content) }, content: content, verdict: Duplicate, of: "me"},
		{name: "a confirm with other content", value: func(d *Deduper) string { return confirm(d, "x", other) }, content: content, verdict: Conflict, of: "x"},
		{name: "a confirm of another key", value: func(d *Deduper) string {
			return "D:" + keyHash("penstock:else") + ":x:" + hex.EncodeToString(content[:])
		}, verdict: Publish, unknown: true},
		{name: "a claim of another key", value: func(d *Deduper) string { return "P:" + keyHash("penstock:else") + ":n2:x" }, verdict: Publish, unknown: true},
		{name: "a foreign value", value: func(*Deduper) string { return "1" }, verdict: Publish, unknown: true},
		{name: "an empty value", value: func(*Deduper) string { return "" }, verdict: Publish, unknown: true},
		{name: "a confirm that is cut off", value: func(d *Deduper) string { return confirm(d, "x", content)[:40] }, verdict: Publish, unknown: true},
		{name: "the index", index: &flight{delivery: "y", at: time.Now()}, verdict: Duplicate, of: "y"},
		{name: "the index, outside the window", index: &flight{delivery: "y", at: time.Now().Add(-2 * time.Hour)}, verdict: Publish},
		{name: "the index, other content", index: &flight{delivery: "y", content: other, at: time.Now()}, content: content, verdict: Conflict, of: "y"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			mr := miniredis.RunT(t)
			x := newIndex()
			if c.index != nil {
				x.set(idOf(1), *c.index)
			}
			d := open(t, Options{Local: x, Redis: redisAt(mr.Addr())}, false)
			if c.value != nil {
				if err := mr.Set(key(d), c.value(d)); err != nil {
					t.Fatal(err)
				}
			}
			cl := claimOf(1, "me")
			cl.Content = c.content
			a := ask(d, cl)[0]
			want(t, a, c.verdict, c.of)
			if a.Unknown != c.unknown || unknowns(d) > 0 != c.unknown {
				t.Errorf("unknown is %t", a.Unknown)
			}
			if (a.ID != cl.ID) != (c.verdict == Conflict) {
				t.Errorf("a %d is confirmed under identity %x", a.Verdict, a.ID)
			}
		})
	}
}

func TestRerenderedIsNoConflict(t *testing.T) {
	x := newIndex()
	x.set(idOf(1), flight{delivery: "y", content: archive.Identity{1}, at: time.Now()})
	c := claimOf(1, "me")
	c.Content, c.Rerendered = archive.Identity{2}, true
	want(t, ask(open(t, Options{Local: x}, false), c)[0], Duplicate, "y")
}

// TestConflictOnce: the repeat of a conflict is a duplicate of the conflict.
func TestConflictOnce(t *testing.T) {
	d := open(t, Options{}, false)
	first := claimOf(1, "a")
	first.Content = archive.Identity{1}
	a := ask(d, first)[0]
	want(t, a, Publish, "")
	d.Confirm([]Claim{first})
	second := claimOf(1, "b")
	second.Content = archive.Identity{2}
	a = ask(d, second)[0]
	want(t, a, Conflict, "a")
	third := second
	third.Delivery = "c"
	want(t, ask(d, third)[0], Wait, "b")
	second.ID = a.ID
	d.Confirm([]Claim{second})
	want(t, ask(d, third)[0], Duplicate, "b")
}

func TestInFlightAndRelease(t *testing.T) {
	d := open(t, Options{}, false)
	out := ask(d, claimOf(1, "a"), claimOf(1, "b"), claimOf(2, "b"))
	want(t, out[0], Publish, "")
	want(t, out[1], Wait, "a")
	want(t, out[2], Publish, "")
	want(t, ask(d, claimOf(1, "a"))[0], Wait, "a") // a second release of one delivery
	d.Release([]Claim{claimOf(1, "b")})            // not ours to give back
	want(t, ask(d, claimOf(1, "b"))[0], Wait, "a")
	d.Release([]Claim{claimOf(1, "a")})
	want(t, ask(d, claimOf(1, "b"))[0], Publish, "")
	d.Confirm([]Claim{claimOf(1, "b")})
	want(t, ask(d, claimOf(1, "c"))[0], Duplicate, "b")
	twin := claimOf(3, "m")
	twin.Item = 1
	out = ask(d, claimOf(3, "m"), twin) // the same identity twice in one delivery
	want(t, out[0], Publish, "")
	want(t, out[1], Wait, "m")
}

// TestTwinsInOneBatch: the first of two turns out to be a duplicate, so the second is.
func TestTwinsInOneBatch(t *testing.T) {
	mr := miniredis.RunT(t)
	d := open(t, Options{Redis: redisAt(mr.Addr())}, false)
	k := d.redis.key(idOf(1))
	if err := mr.Set(k, "D:"+keyHash(k)+":x:"+strings.Repeat("0", 32)); err != nil {
		t.Fatal(err)
	}
	for _, a := range ask(d, claimOf(1, "a"), claimOf(1, "b")) {
		want(t, a, Duplicate, "x")
	}
}

func TestIndexBeingRebuilt(t *testing.T) {
	x := newIndex()
	x.building = true
	d := open(t, Options{Local: x}, false)
	a := ask(d, claimOf(1, "a"))[0]
	if want(t, a, Park, ""); !a.Unknown {
		t.Error("not marked as unknown")
	}
	x.mu.Lock()
	x.building = false
	x.mu.Unlock()
	want(t, ask(d, claimOf(1, "a"))[0], Publish, "")
	// Redis may have been emptied: that it knows nothing is not enough while the index
	// catches up after a start, and enough when that takes long.
	x.building = true
	mr := miniredis.RunT(t)
	now := time.Now()
	o := Options{Local: x, Redis: redisAt(mr.Addr()), Now: func() time.Time { return now }}
	d = open(t, o, false)
	if a := ask(d, claimOf(1, "a"))[0]; a.Verdict != Park || a.Unknown {
		t.Errorf("answer %+v while the index catches up, want parked", a)
	}
	now = now.Add(indexPatience)
	want(t, ask(d, claimOf(1, "a"))[0], Publish, "")
	mr.SetError("LOADING")
	want(t, ask(open(t, Options{Local: x, Redis: redisAt(mr.Addr())}, false), claimOf(2, "a"))[0], Park, "")
}

// lateIndex becomes ready right after it was asked in vain.
type lateIndex struct{ *fakeIndex }

func (l lateIndex) Evidence(id archive.Identity) (string, archive.Identity, time.Time, bool) {
	a, b, c, d := l.fakeIndex.Evidence(id)
	l.mu.Lock()
	l.building = false
	l.mu.Unlock()
	return a, b, c, d
}

// TestIndexReadyTooLate: what the index did not find before it was complete proves nothing.
func TestIndexReadyTooLate(t *testing.T) {
	x := newIndex()
	x.building = true
	want(t, ask(open(t, Options{Local: lateIndex{x}}, false), claimOf(1, "a"))[0], Park, "")
}

// TestForget: what is confirmed stays known until the index shows it.
func TestForget(t *testing.T) {
	x := newIndex()
	d := open(t, Options{Local: x}, true)
	c := claimOf(1, "a")
	ask(d, c)
	d.Confirm([]Claim{c})
	time.Sleep(500 * time.Millisecond)
	want(t, ask(d, claimOf(1, "b"))[0], Duplicate, "a")
	x.set(c.ID, flight{delivery: "a", at: time.Now()})
	eventually(t, "memory is given back", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.recent) == 0 && len(d.ring) == 0
	})
	want(t, ask(d, claimOf(1, "b"))[0], Duplicate, "a")
}

// TestForgetByPlace: an event whose outcome's place is known is forgotten by that alone, and
// not before.
func TestForgetByPlace(t *testing.T) {
	x := newIndex()
	d := open(t, Options{Local: x}, true)
	var ids []Claim
	for i := range 3 {
		c := claimOf(i, "a")
		ask(d, c)
		c.Outcome = uint64(10 + i)
		ids = append(ids, c)
	}
	d.Confirm(ids)
	left := func(n int) {
		t.Helper()
		eventually(t, "what the index shows is forgotten", func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return len(d.recent) == n && len(d.ring) == n
		})
	}
	left(3)
	for n, id := range ids[:2] {
		x.set(id.ID, flight{delivery: "a", at: time.Now()})
		x.mu.Lock()
		x.indexed = id.Outcome
		x.mu.Unlock()
		left(2 - n)
		want(t, ask(d, claimOf(2, "b"))[0], Duplicate, "a")
	}
}

// TestConfirmsOverflow: what does not fit into memory is read from the log.
func TestConfirmsOverflow(t *testing.T) {
	mr := miniredis.RunT(t)
	mr.SetError("LOADING")
	log := []Claim{}
	for i := range 1000 {
		c := claimOf(i, "d")
		c.Outcome = uint64(i + 1)
		log = append(log, c)
	}
	d := open(t, Options{Redis: redisAt(mr.Addr()), MaxConfirms: 100, Outcomes: func(_ context.Context, from uint64, f func(Claim) bool) error {
		for _, c := range log[from-1:] {
			if !f(c) {
				return nil
			}
		}
		return nil
	}}, true)
	for i := 0; i < len(log); i += 50 {
		d.Confirm(log[i : i+50])
	}
	if u := d.Unconfirmed(); u != 1 {
		t.Errorf("lowest unconfirmed outcome is %d, want 1", u)
	}
	if st := d.Status(); st.Confirms > 100 {
		t.Errorf("%d confirms in memory, bound 100", st.Confirms)
	}
	mr.SetError("")
	eventually(t, "all confirms in redis", func() bool { return len(mr.Keys()) == 1000 && d.Unconfirmed() == 0 })
}

func TestOptions(t *testing.T) {
	f := func(o Options) {
		t.Helper()
		if d, err := New(o); err == nil {
			t.Errorf("%+v is accepted", o)
			_ = d
		}
	}
	f(Options{})
	f(Options{Local: newIndex(), Redis: redisAt("x:1"), Node: "a:b"})
	f(Options{Local: newIndex(), Redis: redisAt("x:1")})
	f(Options{Local: newIndex(), Redis: &RedisOptions{}, Node: "n"})
}

func FuzzJudge(f *testing.F) {
	s := &store{prefix: "penstock", node: "n1"}
	key := s.key(idOf(1))
	f.Add("D:" + keyHash(key) + ":x:" + strings.Repeat("0", 32))
	f.Add(s.claimValue(key, "x"))
	f.Fuzz(func(t *testing.T, v string) {
		r := s.judge(key, v)
		if (r.state == replyDelivered || r.state == replyForeign) && !strings.Contains(v, keyHash(key)) {
			t.Errorf("%q proves something", v)
		}
	})
}

// keyHash is what names a key in its value, by the library's FNV-1a.
func keyHash(key string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // never fails
	return hex.EncodeToString(h.Sum(nil))
}

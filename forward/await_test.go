package forward

import (
	"testing"
	"time"

	"penstock/archive"
)

// told waits, without a bound that a slow machine could meet, for what becomes of a delivery.
func (r *rig) told(d *archive.Delivery) bool {
	r.t.Helper()
	_, ok := r.p.Delivered(d.Seq, time.Now().Add(time.Minute), nil)
	return ok
}

func awaitRig(t *testing.T, change func(*Options)) *rig {
	r := newRig(t, change)
	r.start()
	r.p.Await(nil)
	return r
}

// TestDelivered: what the sink has is told, a repeat of it too.
func TestDelivered(t *testing.T) {
	r := awaitRig(t, nil)
	first := r.put("s", body{ID: "a", Key: "k"})
	if !r.told(first) {
		t.Fatal("published, and told that it is not")
	}
	if n := len(r.k.all()); n != 1 {
		t.Fatalf("told with %d events in kafka, want 1", n)
	}
	if !r.told(r.put("s", body{ID: "a", Key: "k"})) {
		t.Error("its twin was delivered, and it is told that it is not")
	}
	if !r.told(r.put("s", body{ID: "n", Note: "none"})) {
		t.Error("there is nothing to publish, and it is told that it is not delivered")
	}
	many := r.put("s", body{ID: "m", Key: "k", Items: 5})
	if !r.told(many) {
		t.Fatal("five events are published, and it is told that they are not")
	}
	if n := len(r.k.all()); n != 6 {
		t.Errorf("told with %d events in kafka, want 6", n)
	}
	r.drained()
}

// TestDeliveredRoutes: with several routes each way counts, and what a route drops has
// nothing to lose.
func TestDeliveredRoutes(t *testing.T) {
	routes, err := CompileRoutes([]Route{{When: `subject == "k"`, Topic: "one"}, {When: `subject == "k"`, Topic: "two"}, {When: `subject == "x"`, Drop: true}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, nil)
	r.infos = func(source string) *SourceInfo {
		return &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}, Topic: "webhooks.{source}", Routes: routes}
	}
	r.start()
	r.p.Await(nil)
	r.k.set(func() { r.k.blocked["two"] = "topic_missing" })
	d := r.put("s", body{ID: "a", Key: "k"})
	r.until("the first way is through", func() bool { return len(r.k.all()) == 1 })
	if _, ok := r.p.Delivered(d.Seq, time.Now().Add(10*time.Millisecond), nil); ok {
		t.Error("one of two topics has it, and it is told as delivered")
	}
	r.k.set(func() { delete(r.k.blocked, "two") })
	if !r.told(r.put("s", body{ID: "a", Key: "k"})) {
		t.Error("both topics have its twin, and it is told as not delivered")
	}
	if !r.told(r.put("s", body{ID: "b", Key: "x"})) {
		t.Error("a dropped event is told as not delivered")
	}
	if n := len(r.k.all()); n != 2 {
		t.Errorf("%d events in kafka, want 2", n)
	}
}

// TestDeliveredLate: who begins to wait when all is over is told the same.
func TestDeliveredLate(t *testing.T) {
	r := awaitRig(t, nil)
	d := r.put("s", body{ID: "a", Key: "k", Items: 3})
	r.drained()
	if !r.told(d) {
		t.Error("published before the wait began, and told that it is not")
	}
	if _, ok := r.p.Delivered(d.Seq, time.Now(), nil); ok {
		t.Error("told twice: its place was not freed")
	}
}

// TestNotDelivered: what will not be in Kafka soon, or not whole, is known at once.
func TestNotDelivered(t *testing.T) {
	r := awaitRig(t, func(o *Options) { o.AdminURL, o.MaxEventSize = "http://admin", 300 })
	if r.told(r.put("s", body{ID: "bad", Note: "bad"})) {
		t.Error("a dead letter is told as delivered")
	}
	long := body{ID: "long", Key: string(make([]byte, 400))}
	if r.told(r.put("s", long)) {
		t.Error("a pointer to the archive is told as delivered: with the disk the body is lost")
	}
	if r.told(r.put("s", long)) {
		t.Error("the repeat of a pointer is told as delivered")
	}
	if err := r.p.Pause("s"); err != nil {
		t.Fatal(err)
	}
	r.until("the pause is in force", func() bool {
		d := r.put("s", body{ID: "before " + time.Now().String(), Key: "k"})
		return !r.told(d)
	})
	held := r.put("s", body{ID: "held", Key: "k"})
	if r.told(held) {
		t.Error("a paused source's delivery is told as delivered")
	}
	if err := r.p.Resume("s"); err != nil {
		t.Fatal(err)
	}
	r.drained()
	if ids(r.k.all())["held"] != 1 {
		t.Error("what was answered 503 is not published once")
	}
}

// TestDeliveredByThen: with the sink away the wait ends, and the delivery goes on.
func TestDeliveredByThen(t *testing.T) {
	r := awaitRig(t, nil)
	r.until("live", func() bool { return r.p.Stats().State == "live" })
	r.k.set(func() { r.k.away = true })
	d := r.put("s", body{ID: "a", Key: "k"})
	if _, ok := r.p.Delivered(d.Seq, time.Now().Add(20*time.Millisecond), nil); ok {
		t.Error("told as delivered with the sink away")
	}
	stop := make(chan struct{})
	close(stop)
	if _, ok := r.p.Delivered(d.Seq, time.Now().Add(time.Hour), stop); ok {
		t.Error("told as delivered at a stop")
	}
	again := r.put("s", body{ID: "a", Key: "k"})
	if _, ok := r.p.Delivered(again.Seq, time.Now().Add(20*time.Millisecond), nil); ok {
		t.Error("the repeat of what is on its way is told as delivered")
	}
	last := r.put("s", body{ID: "a", Key: "k"})
	r.k.set(func() { r.k.away = false })
	if !r.told(last) {
		t.Error("its twin arrived, and it is told that it is not delivered")
	}
	r.drained()
	if got := ids(r.k.all())["a"]; got != 1 {
		t.Errorf("published %d times, want once", got)
	}
	if a := r.p.awaits.Load(); len(a.waiting) != 0 {
		t.Errorf("%d still wait", len(a.waiting))
	}
}

// TestEarlyBounds: answers that nobody fetches do not fill the memory, and one that did
// not fit is no 2xx.
func TestEarlyBounds(t *testing.T) {
	p := &Pump{}
	p.Await(nil)
	a := p.awaits.Load()
	const size = 64 << 10
	for seq := range uint64(earlyBytes/size + 10) {
		a.tell(seq+1, 1, true, &Reply{Status: 200, Body: make([]byte, size)})
	}
	if a.bytes > earlyBytes {
		t.Errorf("%d bytes of answers are kept", a.bytes)
	}
	if _, ok := p.Delivered(earlyBytes/size+5, time.Now().Add(time.Hour), nil); ok {
		t.Error("what did not fit is told as delivered")
	}
	for seq := range uint64(earlyBytes / size) {
		if r, ok := p.Delivered(seq+1, time.Now().Add(time.Hour), nil); !ok || r == nil {
			t.Fatalf("answer %d is lost", seq+1)
		}
	}
	if a.bytes != 0 {
		t.Errorf("%d bytes are counted with nothing kept", a.bytes)
	}
}

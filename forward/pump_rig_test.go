package forward

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"penstock/archive"
	"penstock/dedupe"
	"penstock/provider"
)

// body is what the test provider sends.
type body struct {
	ID    string `json:"id"`
	Key   string `json:"key"`
	Items int    `json:"items,omitempty"`
	Note  string `json:"note,omitempty"`
	Test  bool   `json:"test,omitempty"`
	State string `json:"state,omitempty"`
	Dated bool   `json:"dated,omitempty"` // it says when it happened
}

// fakeDef reads body. Notes "bad" and "panic" make it fail.
type fakeDef struct{ rerendered bool }

func (f fakeDef) Events(r *provider.Request) ([]provider.Event, error) {
	var b body
	if err := json.Unmarshal(r.Body, &b); err != nil {
		return nil, err
	}
	switch b.Note {
	case "bad":
		return nil, errors.New("cannot be read")
	case "panic":
		panic("definition")
	case "none":
		return nil, nil
	}
	var out []provider.Event
	for i := range max(b.Items, 1) {
		e := provider.Event{ID: b.ID, CEID: b.ID, Type: "t", Canonical: "payment.captured", OwnType: "prov.t", State: b.State, Subject: b.Key,
			Payload: r.Body, PayloadJSON: true, Rerendered: f.rerendered}
		if i > 0 {
			e.CEID = fmt.Sprintf("%s#%d", b.ID, i)
		}
		if b.Dated {
			e.OccurredAt = time.Unix(1e9, 0)
		}
		if b.Test {
			live := false
			e.Livemode = &live
		}
		sum := sha256.Sum256(r.Body)
		copy(e.Content[:], sum[:])
		out = append(out, e)
	}
	return out, nil
}

// crashLog is an archive that a killed process cannot write to any more.
type crashLog struct {
	Log
	dead *atomic.Bool
	fail func([]archive.Outcome) error
}

func (c crashLog) AppendOutcomes(os []archive.Outcome) error {
	if c.dead.Load() {
		return archive.ErrClosed
	}
	if c.fail != nil {
		if err := c.fail(os); err != nil {
			return err
		}
	}
	return c.Log.AppendOutcomes(os)
}

func (c crashLog) State() State { return crashState{c.Log.State(), c.dead} }

type crashState struct {
	State
	dead *atomic.Bool
}

func (c crashState) Commit(ch ...archive.Change) error {
	if c.dead.Load() {
		return archive.ErrClosed
	}
	return c.State.Commit(ch...)
}

// rig is a gateway's back half: archive, dedupe, pump, fake Kafka.
type rig struct {
	t      *testing.T
	dir    string
	k      *fakeKafka
	a      *archive.Archive
	p      *Pump
	s      *fakeSink
	d      *dedupe.Deduper
	reg    *prometheus.Registry
	dead   atomic.Bool
	cancel context.CancelFunc
	done   chan error
	epoch  map[string]uint64
	change func(*Options)
	infos  func(source string) *SourceInfo
	fail   func([]archive.Outcome) error
	slow   time.Duration
	mu     sync.Mutex // protects epoch, epochs
	epochs map[uint64]string
	last   uint64 // seq of the last delivery
	keep   archive.Options
}

func newRig(t *testing.T, change func(*Options)) *rig {
	r := &rig{t: t, dir: t.TempDir(), k: newFakeKafka(), change: change, epochs: map[uint64]string{}, epoch: map[string]uint64{}}
	r.infos = func(source string) *SourceInfo {
		return &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}, Topic: "webhooks.{source}"}
	}
	r.openArchive()
	t.Cleanup(func() {
		if r.p != nil {
			r.kill()
		}
		if r.a != nil {
			r.a.Close()
		}
	})
	return r
}

func (r *rig) openArchive() {
	r.t.Helper()
	o := r.keep
	o.ReservePercent = -1
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 1 << 20
	}
	a, err := archive.Open(r.dir, o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.a = a
}

func (r *rig) start() {
	r.t.Helper()
	r.dead.Store(false)
	for !r.a.IndexReady() {
		time.Sleep(time.Millisecond)
	}
	r.reg = prometheus.NewRegistry()
	d, err := dedupe.New(dedupe.Options{Local: r.a})
	if err != nil {
		r.t.Fatal(err)
	}
	r.d = d
	r.s = newFakeSink(r.k)
	r.s.slow = r.slow
	o := Options{Archive: crashLog{FromArchive(r.a), &r.dead, r.fail}, Dedupe: d, DeadLetterTopic: "dead", Registerer: r.reg,
		HoldAfter: 50 * time.Millisecond, sink: r.s, grace: 200 * time.Millisecond,
		Source: func(epoch, _ uint64) (*SourceInfo, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.infos(r.epochs[epoch]), nil
		}}
	if r.change != nil {
		r.change(&o)
	}
	if r.p, err = New(o); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	dctx, dcancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan error, 1)
	ddone := make(chan struct{})
	go func() {
		defer close(ddone)
		_ = d.Run(dctx)
	}()
	p, done := r.p, r.done
	go func() {
		err := p.Run(ctx)
		dcancel()
		<-ddone
		done <- err
	}()
}

// stop ends the pump in good order.
func (r *rig) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.done; err != nil {
		r.t.Fatal(err)
	}
	r.s.kill()
	r.p = nil
}

// kill ends it as a crash does: nothing more is written, nothing more is acked.
func (r *rig) kill() {
	r.dead.Store(true)
	r.s.kill()
	r.cancel()
	<-r.done
	r.p = nil
}

// crash kills the pump and opens the archive again.
func (r *rig) crash() {
	r.kill()
	r.reopen()
}

func (r *rig) reopen() {
	if err := r.a.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.openArchive()
}

// put archives an accepted delivery.
func (r *rig) put(source string, b body) *archive.Delivery {
	r.t.Helper()
	text, _ := json.Marshal(b)
	return r.putRaw(source, text)
}

func (r *rig) putRaw(source string, text []byte) *archive.Delivery {
	r.t.Helper()
	d := &archive.Delivery{ReceivedAt: time.Now(), Source: source, Provider: "prov", Verdict: archive.Accepted,
		VerifiedBy: "hmac:abc", Method: "POST", Target: []byte("/in/" + source), Header: []byte("Content-Type: application/json\r\n"),
		Body: text, Epoch: r.epochOf(source)}
	if err := r.a.Append(d); err != nil {
		r.t.Fatal(err)
	}
	r.last = d.Seq
	return d
}

func (r *rig) epochOf(source string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id, ok := r.epoch[source]; ok {
		return id
	}
	id := r.a.RegisterEpoch(source, []byte(`{"s":"`+source+`"}`))
	r.epoch[source], r.epochs[id] = id, source
	return id
}

// until waits for a condition; a time-out is a failure with what says.
func (r *rig) until(what string, f func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain for: %s (stats %+v, in kafka %d)", what, r.p.Stats(), len(r.k.all()))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *rig) drained() {
	r.t.Helper()
	r.until("nothing unpublished", func() bool {
		return r.p.Stats().State == "live" && r.p.led.Load().position() >= r.last && r.p.Unpublished() == 0
	})
}

func (l *ledger) position() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pos
}

// outcomes reads every outcome of a delivery out of the log.
func (r *rig) outcomes(d *archive.Delivery) (out []archive.Outcome) {
	r.t.Helper()
	rd := r.a.NewReader(1)
	defer rd.Close()
	for {
		rec, ok, err := rd.TryNext()
		if err != nil {
			r.t.Fatal(err)
		}
		if !ok {
			return out
		}
		if o := rec.Outcome; o != nil && o.Delivery == d.Seq {
			out = append(out, *o)
		}
	}
}

func ids(rs []fakeRecord) map[string]int {
	m := map[string]int{}
	for _, r := range rs {
		m[r.headers["ce_id"]]++
	}
	return m
}

// explain logs everything that the log and Kafka say of an event.
func (r *rig) explain(ceID string) {
	for _, rec := range r.k.all() {
		if rec.headers["ce_id"] == ceID {
			r.t.Logf("%s in kafka: delivery %s seq %s conflict %q", ceID, rec.headers["ce_deliveryid"], rec.headers["ce_archiveseq"], rec.headers["ce_conflict"])
		}
	}
	rd := r.a.NewReader(1)
	defer rd.Close()
	for {
		rec, ok, err := rd.TryNext()
		if err != nil || !ok {
			return
		}
		if o := rec.Outcome; o != nil && o.Fields.CEID == ceID {
			of, _, at, ok := r.a.Evidence(o.Identity)
			r.t.Logf("%s seq %d: delivery %d item %d %v %s of %s at %d/%d; identity %x evidence now %s %v %t", ceID, rec.Seq, o.Delivery, o.Item,
				o.Kind, o.Reason, o.Of, o.Partition, o.Offset, o.Identity, of, at, ok)
		}
	}
}

// metric sums a metric over its labels; of a histogram it is the count.
func (r *rig) metric(name string) (sum float64) {
	fams, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, fam := range fams {
		if fam.GetName() != name {
			continue
		}
		for _, m := range fam.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

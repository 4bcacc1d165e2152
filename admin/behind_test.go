package admin

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

// What work behind panics with reaches who asked for it, and the next work is done.
func TestBehindPanics(t *testing.T) {
	b := newBehind()
	func() {
		defer func() {
			err, ok := recover().(error)
			if !ok || !strings.Contains(err.Error(), "a mistake") || !strings.Contains(err.Error(), "TestBehindPanics") {
				t.Errorf("it panicked with %v, want the mistake and its stack", err)
			}
		}()
		b.do(func() { panic("a mistake") })
		t.Error("the panic was lost")
	}()
	done := false
	b.do(func() { done = true })
	if !done {
		t.Error("do returned before the work was done")
	}
}

// Workers are there where enough processors stay for deliveries: where main has made more of
// them than there are CPUs.
func TestBehindLeavesProcessors(t *testing.T) {
	a := newFakeArchive()
	l := newLane(a, runtime.GOMAXPROCS(0))
	if l.behind != nil {
		t.Error("as many processors as CPUs, and workers")
	}
	if _, err := l.Query(t.Context(), archive.Filter{}); err != nil || a.asked.Behind {
		t.Errorf("without workers a search gives way: err %v, behind %v", err, a.asked.Behind)
	}
}

// probed tells where the lane does its work.
type probed struct {
	Archive
	probe func(what string)
	yield bool // the search was to give way by itself
}

func (p *probed) FirstOutcomes(ids []string, fits func(*archive.Outcome) bool) ([]archive.Outcome, error) {
	p.probe("outcomes")
	return p.Archive.FirstOutcomes(ids, fits)
}

func (p *probed) Query(ctx context.Context, f archive.Filter) (archive.Page, error) {
	p.probe("query " + f.Text + f.Source)
	p.yield = !f.Behind
	return p.Archive.Query(ctx, f)
}

func (p *probed) Counts(ctx context.Context, from, to time.Time, step time.Duration, source string) (archive.Counts, error) {
	p.probe("counts")
	return p.Archive.Counts(ctx, from, to, step, source)
}

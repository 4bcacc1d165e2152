package archive

import (
	"context"
	"errors"
	"fmt"
)

// Export reads an archive directory that it does not open: no lock, nothing written, so
// it works on a copy and beside a running gateway. Rows are made as the index makes them,
// from the deliveries and their outcomes, without the index.
type Export struct {
	Dir      string
	Keys     *Keys  // of an encrypted archive
	Rejected bool   // the quarantine in place of the log
	Filter   Filter // Limit 0 = all; Cursor is not looked at
	// Progress hears now and then how far a pass over the log is. May be nil.
	Progress func(pass string, seq, last uint64)
	// Damaged hears of each record that cannot be read. May be nil.
	Damaged func(error)
}

const (
	// exportWindow is how many records behind its delivery an outcome is waited for; it
	// bounds the rows in memory. Those that come later are looked for in a pass before.
	exportWindow = 20_000
	// maxLate bounds those later ones: about 300 MB of them.
	maxLate = 1_000_000

	progressEvery = 1 << 12
)

// ErrTooManyLate is returned by Export where more outcomes than can be kept in memory
// came long after their deliveries.
var ErrTooManyLate = errors.New("too many outcomes came long after their deliveries; take it out in parts, by from and to")

// exporter is one run.
type exporter struct {
	*Export
	ctx    context.Context
	late   map[ref][]*Outcome
	last   uint64 // of the log, when the run began
	wait   []*live
	near   map[ref]*live
	needle string
	left   int // rows that are still wanted; -1 = all
}

// Rows gives every row that fits the filter, oldest first, to f until it returns an error.
func (e *Export) Rows(ctx context.Context, f func(Row) error) error {
	x, err := e.begin(ctx)
	if err != nil {
		return err
	}
	return x.rows(func(en *entry) error { return f(en.public()) })
}

// Deliveries gives every delivery that fits the filter, oldest first, to f until it
// returns an error. It reads the log once more than Rows does.
func (e *Export) Deliveries(ctx context.Context, f func(*Delivery) error) error {
	x, err := e.begin(ctx)
	if err != nil {
		return err
	}
	wanted := newSeqSet()
	damaged := e.Damaged
	x.Export = &Export{Dir: e.Dir, Keys: e.Keys, Rejected: e.Rejected, Filter: e.Filter, Progress: e.Progress}
	if err := x.rows(func(en *entry) error { wanted.add(en.ref.seq()); return nil }); err != nil {
		return err
	}
	x.Damaged = damaged
	return x.walk("reading bodies", e.Rejected, func(r Record) error {
		if r.Delivery != nil && wanted.has(r.Seq) {
			return f(r.Delivery)
		}
		return nil
	})
}

// begin reads the log's outcomes that do not follow their delivery closely.
func (e *Export) begin(ctx context.Context) (*exporter, error) {
	x := &exporter{Export: e, ctx: ctx, late: map[ref][]*Outcome{}, near: map[ref]*live{}, needle: lowerASCII(e.Filter.Text), left: -1}
	if e.Filter.Limit > 0 {
		x.left = e.Filter.Limit
	}
	n := 0
	quiet := &exporter{Export: &Export{Dir: e.Dir, Keys: e.Keys, Progress: e.Progress}, ctx: ctx}
	err := quiet.walk("reading outcomes", false, func(r Record) error {
		x.last = r.Seq
		o := r.Outcome
		if o == nil {
			return nil
		}
		to := makeRef(0, o.Delivery)
		if (to.log() == 1) != e.Rejected || to.log() == 0 && r.Seq-to.seq() <= exportWindow {
			return nil
		}
		if n++; n > maxLate {
			return ErrTooManyLate
		}
		o.Seq = r.Seq
		x.late[to] = append(x.late[to], o)
		return nil
	})
	return x, err
}

// errEnough ends a walk early.
var errEnough = errors.New("enough")

// walk is Walk with what all passes have in common.
func (x *exporter) walk(pass string, rejected bool, f func(Record) error) error {
	n := 0
	err := WalkWith(x.Dir, x.Keys, rejected, func(r Record) error {
		if x.last > 0 && !rejected && r.Seq > x.last {
			return errEnough // came after the first pass: its outcomes are not known
		}
		if n++; n%progressEvery == 0 {
			if err := x.ctx.Err(); err != nil {
				return err
			}
			if x.Progress != nil {
				x.Progress(pass, r.Seq, x.last)
			}
		}
		if erased := (*ErasedError)(nil); errors.As(r.Corrupt, &erased) && erased.Delivery != nil {
			return f(r)
		}
		if r.Corrupt != nil {
			if x.Damaged != nil {
				x.Damaged(r.Corrupt)
			}
			return nil
		}
		return f(r)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (x *exporter) rows(f func(*entry) error) error {
	err := x.walk("making rows", x.Rejected, func(r Record) error {
		for len(x.wait) > 0 && r.Seq-x.wait[0].e.ref.seq() > exportWindow {
			if err := x.pop(f); err != nil {
				return err
			}
		}
		var erased *ErasedError
		switch {
		case r.Delivery != nil:
			x.push(r.Delivery)
		case errors.As(r.Corrupt, &erased):
			erased.Delivery.Reason = reasonErased // all that is left is its row
			x.push(erased.Delivery)
		case r.Outcome != nil:
			r.Outcome.Seq = r.Seq
			if l := x.near[makeRef(0, r.Outcome.Delivery)]; l != nil {
				l.outcome(r.Outcome)
			}
		}
		return nil
	})
	for err == nil && len(x.wait) > 0 {
		err = x.pop(f)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (x *exporter) push(d *Delivery) {
	l := &live{e: newEntry(d)}
	if !x.Filter.mayMatch(&l.e.row) || x.Filter.Text != "" && !x.Filter.inText(d, x.needle) {
		return
	}
	x.wait = append(x.wait, l)
	x.near[l.e.ref] = l
}

// pop finishes the oldest row that waits.
func (x *exporter) pop(f func(*entry) error) error {
	l := x.wait[0]
	x.wait[0] = nil
	x.wait = x.wait[1:]
	delete(x.near, l.e.ref)
	for _, o := range x.late[l.e.ref] {
		l.outcome(o)
	}
	l.settle()
	if !x.Filter.matches(l.e) {
		return nil
	}
	if x.left == 0 {
		return errEnough
	}
	x.left--
	if err := f(l.e); err != nil {
		return fmt.Errorf("export seq=%d: %w", l.e.row.Seq, err)
	}
	return nil
}

// mayMatch dismisses by what no outcome changes.
func (f *Filter) mayMatch(r *Row) bool {
	return (f.Source == "" || f.Source == r.Source) && (f.From.IsZero() || !r.ReceivedAt.Before(f.From)) &&
		(f.To.IsZero() || r.ReceivedAt.Before(f.To))
}

// inText looks for the full text that is asked for, in lower case.
func (f *Filter) inText(d *Delivery, needle string) bool {
	return containsFold(d.Body, needle) || !f.BodyOnly && (containsFold(d.Header, needle) || containsFold(d.Target, needle))
}

// seqSet is a set of seqs, a bit each, in pages: seqs are dense.
type seqSet map[uint64]*[64]uint64

func newSeqSet() seqSet { return seqSet{} }

func (s seqSet) add(seq uint64) {
	p := s[seq>>12]
	if p == nil {
		p = new([64]uint64)
		s[seq>>12] = p
	}
	p[seq>>6&63] |= 1 << (seq & 63)
}

func (s seqSet) has(seq uint64) bool {
	p := s[seq>>12]
	return p != nil && p[seq>>6&63]&(1<<(seq&63)) != 0
}

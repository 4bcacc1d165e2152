package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Page is one answer of Query, newest first.
type Page struct {
	Rows []Row `json:"deliveries"`
	// Next is the cursor of what follows; "" at the end. A page may hold fewer rows than
	// asked for, even none, and still have a Next: free text over very many rows, a Budget or
	// full text whose time was up.
	Next string `json:"next"`
	// SearchedTo is there where the page ended before it was full: the time of receipt that
	// the search got back to.
	SearchedTo *time.Time `json:"searched_to,omitempty"`
	// Progress is there where full text was searched.
	Progress *Progress `json:"progress,omitempty"`
}

// maxScan bounds the steps of one page (about 1 s of free text); a page that reaches it
// is answered as far as it got.
const maxScan = 2_000_000

// Query lists deliveries. Paging is stable: rows that arrive between two pages are newer
// and do not shift them. Errors: ErrCursor (400), ErrIndex (503), ctx's own.
func (a *Archive) Query(ctx context.Context, f Filter) (Page, error) {
	if a.index == nil {
		return Page{}, ErrIndex
	}
	if f.Text != "" {
		return a.searchText(ctx, f)
	}
	return a.index.query(ctx, &f)
}

// Row gives one delivery's row: from the index, or made from the delivery itself when
// the index has not got that far. ErrNotFound as in Get.
func (a *Archive) Row(id string) (Row, error) {
	if a.index != nil {
		e, err := a.index.byID(id)
		if err != nil && !errors.Is(err, ErrIndex) {
			return Row{}, err
		}
		if e != nil {
			return e.public(), nil
		}
	}
	d, err := a.Get(id)
	if err != nil {
		return Row{}, err
	}
	e := newEntry(d)
	if a.index != nil && d.Verdict != Challenge && a.index.o.Extract != nil {
		a.index.guess(e, d)
	}
	return e.public(), nil
}

// Outcomes gives all outcomes of a delivery in the order in which they were written,
// those of replays too. A released delivery of the quarantine is named by its seq with
// bit 47 set, as its outcomes name it. Of Fields, what the row keeps is given.
func (a *Archive) Outcomes(seq uint64) ([]Outcome, error) {
	if a.index == nil {
		return nil, ErrIndex
	}
	return a.index.outcomes(makeRef(0, seq))
}

// OutcomesOf is Outcomes by the delivery's public id, whichever log it is in.
func (a *Archive) OutcomesOf(id string) ([]Outcome, error) {
	if a.index == nil {
		return nil, ErrIndex
	}
	r, ok := refOf(id)
	if !ok {
		return nil, nil
	}
	return a.index.outcomes(r)
}

// FirstOutcomes gives each delivery's first outcome that fits, without its Fields; where none
// does, its Kind is zero. One look for many takes a fraction of one for each.
func (a *Archive) FirstOutcomes(ids []string, fits func(*Outcome) bool) ([]Outcome, error) {
	if a.index == nil {
		return nil, ErrIndex
	}
	return a.index.firstOutcomes(ids, fits)
}

// Indexed is the last seq of the log that queries and Evidence know. Whoever keeps
// events in flight may forget one when its outcome's seq is not above this.
func (a *Archive) Indexed() uint64 {
	if a.index == nil {
		return 0
	}
	return a.index.position(0)
}

// IndexReady reports whether the index has caught up with what was in the log when this
// was first asked; once true it stays true while the index works.
func (a *Archive) IndexReady() bool {
	x := a.index
	if x == nil || x.broken.Load() != nil || !x.isOpen() {
		return false
	}
	return x.position(0)+1 >= x.readyAt.Load()
}

// IndexLag is how many synced records the index has not applied yet.
func (a *Archive) IndexLag() uint64 {
	synced, indexed := a.Synced(), a.Indexed()
	return max(synced, indexed) - indexed
}

// refOf reads log and seq out of a public id.
func refOf(id string) (ref, bool) {
	_, _, seq, ok := parseID(id)
	return makeRef(0, seq), ok
}

// byID gives the entry of a delivery, nil when the index has none of this id.
func (x *index) byID(id string) (*entry, error) {
	r, ok := refOf(id)
	if !ok {
		return nil, nil
	}
	done, err := x.reading()
	if err != nil {
		return nil, err
	}
	defer done()
	e, err := x.readEntry(r)
	if err != nil || e == nil || e.row.ID != id || x.forgotten(r) {
		return nil, err
	}
	return e, nil
}

func (x *index) forgotten(r ref) bool { return r.seq() < x.floor[r.log()].Load() }

func (x *index) outcomes(r ref) ([]Outcome, error) {
	done, err := x.reading()
	if err != nil {
		return nil, err
	}
	defer done()
	if x.forgotten(r) {
		return nil, nil
	}
	var os []Outcome
	if err := x.eachOutcome(r, func(o *Outcome) { os = append(os, *o) }); err != nil {
		return nil, err
	}
	e, err := x.readEntry(r)
	if err != nil || e == nil {
		return os, err
	}
	for i := range os {
		for j := range e.items {
			if e.items[j].n == os[i].Item {
				os[i].Fields = e.items[j].f
			}
		}
	}
	return os, nil
}

// eachOutcome visits the committed outcomes of a delivery by seq.
func (x *index) eachOutcome(r ref, visit func(*Outcome)) error {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: outcomeKey(nil, r, 0), UpperBound: outcomeKey(nil, r+1, 0)})
	if err != nil {
		return fmt.Errorf("read outcomes of seq=%d: %w", r.seq(), err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		o, err := x.codec.decodeOutcome(it.Value())
		if err != nil {
			return errors.Join(fmt.Errorf("read outcome of seq=%d: %w", r.seq(), err), it.Close())
		}
		o.Seq = binary.BigEndian.Uint64(it.Key()[9:])
		o.Delivery = r.public()
		visit(&o)
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("read outcomes of seq=%d: %w", r.seq(), err)
	}
	return nil
}

func (x *index) firstOutcomes(ids []string, fits func(*Outcome) bool) ([]Outcome, error) {
	done, err := x.reading()
	if err != nil {
		return nil, err
	}
	defer done()
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyOutcome}, UpperBound: []byte{keyOutcome + 1}})
	if err != nil {
		return nil, fmt.Errorf("read outcomes: %w", err)
	}
	out := make([]Outcome, len(ids))
	for i, id := range ids {
		r, ok := refOf(id)
		if !ok || x.forgotten(r) {
			continue
		}
		key := outcomeKey(nil, r, 0)
		for ok = it.SeekGE(key); ok && bytes.HasPrefix(it.Key(), key[:9]); ok = it.Next() {
			o, err := x.codec.decodeOutcome(it.Value())
			if err != nil {
				return nil, errors.Join(fmt.Errorf("read outcome of seq=%d: %w", r.seq(), err), it.Close())
			}
			if !fits(&o) {
				continue
			}
			o.Seq = binary.BigEndian.Uint64(it.Key()[9:])
			o.Delivery = r.public()
			out[i] = o
			break
		}
	}
	if err := it.Close(); err != nil {
		return nil, fmt.Errorf("read outcomes: %w", err)
	}
	return out, nil
}

// readEntry gives the committed row of a delivery, nil when there is none.
func (x *index) readEntry(r ref) (*entry, error) {
	at, found, err := receivedAt(x.db, r)
	if err != nil || !found {
		return nil, err
	}
	return x.readRow(makeOrder(time.Unix(0, at), r))
}

func (x *index) readRow(o order) (*entry, error) {
	b, closer, err := x.db.Get(rowKey(nil, o))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read row of seq=%d: %w", o.ref().seq(), err)
	}
	defer closer.Close()
	e, err := x.codec.decodeRow(b)
	if err != nil {
		return nil, fmt.Errorf("read row of seq=%d: %w", o.ref().seq(), err)
	}
	return e, nil
}

func (x *index) query(ctx context.Context, f *Filter) (Page, error) {
	after, resumed, err := f.after()
	if err != nil {
		return Page{}, err
	}
	limit := f.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	limit = min(limit, MaxLimit)
	done, err := x.reading()
	if err != nil {
		return Page{}, err
	}
	defer done()
	lower, upper := f.bounds(after, resumed)
	s := &scan{x: x, f: f, limit: limit, needle: lowerASCII(f.Q), page: Page{Rows: make([]Row, 0, min(limit, 64))}}
	if f.Budget > 0 {
		s.until = time.Now().Add(f.Budget)
	}
	if bytes.Compare(lower, upper) < 0 {
		if vs := f.values(); len(vs) == 0 {
			err = s.rows(ctx, lower, upper)
		} else {
			err = s.values(ctx, vs, lower, upper)
		}
	}
	if err != nil {
		return Page{}, fmt.Errorf("query the index: %w", err)
	}
	return s.page, nil
}

// bounds gives the first order that is wanted and the first that is not any more.
func (f *Filter) bounds(after order, resumed bool) (lower, upper []byte) {
	lower, upper = make([]byte, orderSize), bytes.Repeat([]byte{0xff}, orderSize+1)
	if !f.To.IsZero() {
		// t < to is t <= to-1ns: the newest wanted row has ^(to-1) = ^to + 1.
		binary.BigEndian.PutUint64(lower, ^uint64(nanos(f.To))+1)
		if nanos(f.To) == 0 {
			return upper, upper
		}
	}
	if resumed && bytes.Compare(after[:], lower) >= 0 {
		lower = append(after[:], 0)
	}
	if !f.From.IsZero() {
		upper = binary.BigEndian.AppendUint64(nil, ^uint64(nanos(f.From)))
		upper = append(upper, bytes.Repeat([]byte{0xff}, orderSize-8+1)...)
	}
	return lower, upper
}

// scan fills one page.
type scan struct {
	x      *index
	f      *Filter
	needle string
	limit  int
	page   Page
	last   order // of the last row on the page
	seen   order // the last place that was looked at
	steps  int
	until  time.Time // zero: no bound
}

const (
	// stepsBetweenYields: some 100 us of looking. Whoever else can run goes first then: a
	// search that finds little would keep a CPU for the scheduler's whole 10 ms, and an
	// answer to a provider would wait for it. Filter.Behind spares it: a goroutine with a
	// thread of its own pays two changes of threads for giving way.
	stepsBetweenYields = 64
	stepsBetweenLooks  = 64 // at the clock; a step of an intersection may be several seeks
)

// at is the time of receipt.
func (o order) at() time.Time {
	return time.Unix(0, int64(^binary.BigEndian.Uint64(o[:8]))).UTC() //nolint:gosec // what makeOrder took from an int64
}

// step counts work; it reports that the page must end before o.
func (s *scan) step(ctx context.Context, o order) (bool, error) {
	s.steps++
	over := s.steps > s.x.maxScan
	if s.steps%stepsBetweenYields == 0 && !s.f.Behind {
		runtime.Gosched()
	}
	if s.steps%stepsBetweenLooks == 0 {
		if ctx.Err() != nil {
			return true, ctx.Err()
		}
		over = over || !s.until.IsZero() && time.Now().After(s.until)
	}
	if over {
		at := s.seen.at()
		s.page.Next, s.page.SearchedTo = s.f.cursor(s.seen), &at
		return true, nil
	}
	s.seen = o
	return false, nil
}

// take puts a fitting entry on the page; it reports that the page is full and another
// row is known to follow.
func (s *scan) take(e *entry, o order) bool {
	if s.x.forgotten(e.ref) || !s.f.matches(e) {
		return false
	}
	if len(s.page.Rows) == s.limit {
		s.page.Next = s.f.cursor(s.last)
		return true
	}
	s.page.Rows = append(s.page.Rows, e.public())
	s.last = o
	return false
}

// rows reads all rows in order; without a field to look up there is no better way.
func (s *scan) rows(ctx context.Context, lower, upper []byte) error {
	it, err := s.x.db.NewIterWithContext(ctx, &pebble.IterOptions{
		LowerBound: append([]byte{keyRow}, lower...), UpperBound: append([]byte{keyRow}, upper...)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		o := order(it.Key()[1:])
		if stop, err := s.step(ctx, o); stop || err != nil {
			return errors.Join(err, it.Close())
		}
		v := it.Value()
		// The encoded row holds the columns' bytes: most rows are dismissed undecoded.
		// The outcome's and the verdict's words are not all in there, so they are tried after.
		if s.needle != "" && s.x.codec == nil && !containsFold(v, s.needle) && !outcomeWord(s.needle) {
			continue
		}
		e, err := s.x.codec.decodeRow(v)
		if err != nil {
			return errors.Join(fmt.Errorf("row of seq=%d: %w", o.ref().seq(), err), it.Close())
		}
		if s.take(e, o) {
			break
		}
	}
	return it.Close()
}

// outcomeWord reports whether the needle is part of an outcome's name, which a row holds
// as a bit only.
func outcomeWord(needle string) bool {
	for _, k := range kindOrder {
		if containsFold(k.String(), needle) {
			return true
		}
	}
	return false
}

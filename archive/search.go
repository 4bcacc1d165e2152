package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Progress says how far a search of full text has come. What is left divided by the
// total is the share of the time range that later pages will look at.
type Progress struct {
	Scanned int64      `json:"scanned"`    // deliveries that were read for this page
	Damaged int64      `json:"damaged"`    // of them, such as cannot be read any more
	Total   int64      `json:"total"`      // deliveries in the range of time, of the source and verdict asked for
	Left    int64      `json:"left"`       // of them, older than what was reached
	Reached *time.Time `json:"reached_at"` // time of the oldest that was read; null: none was
}

const (
	// textBudget is how long one page of a text search reads; what it has then is answered.
	textBudget = 2 * time.Second
	// textWindow is how many rows are looked up in the log at once: some milliseconds of
	// work between two rests.
	textWindow = 256
	// textGap is how many records are read through to reach the next wanted one, before it
	// is looked up by itself.
	textGap = 32
)

// searchText looks for f.Text in the log, newest first: rows come from the index by all
// other filters, and of each its bytes are read. One search runs at a time, and while
// deliveries come in it works a quarter of the time: whoever waits for a search can wait,
// whoever waits for an answer cannot.
func (a *Archive) searchText(ctx context.Context, f Filter) (Page, error) {
	select {
	case a.searching <- struct{}{}:
		defer func() { <-a.searching }()
	case <-ctx.Done():
		return Page{}, ctx.Err()
	}
	limit := f.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	s := &textSearch{a: a, f: f, needle: lowerASCII(f.Text), limit: min(limit, MaxLimit), page: Page{Rows: []Row{}, Next: f.Cursor}}
	s.f.Limit = textWindow
	for deadline := time.Now().Add(a.textBudget); ; {
		began, synced := time.Now(), a.Synced()
		more, err := s.window(ctx)
		if err != nil {
			return Page{}, err
		}
		if !more || !time.Now().Before(deadline) {
			break
		}
		if err := a.giveWay(ctx, time.Since(began), a.Synced()-synced); err != nil {
			return Page{}, err
		}
	}
	if err := s.measure(); err != nil {
		return Page{}, err
	}
	return s.page, nil
}

// giveWay rests three times as long as a window took where deliveries came in meanwhile.
func (a *Archive) giveWay(ctx context.Context, took time.Duration, came uint64) error {
	if came == 0 {
		return ctx.Err()
	}
	rest := time.NewTimer(3 * took)
	defer rest.Stop()
	select {
	case <-rest.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// textSearch fills one page.
type textSearch struct {
	a        *Archive
	f        Filter
	needle   string
	limit    int
	page     Page
	progress Progress
}

// window looks at the next rows; it reports whether there is more to look at.
func (s *textSearch) window(ctx context.Context) (bool, error) {
	s.f.Cursor = s.page.Next
	rows, err := s.a.index.query(ctx, &s.f)
	if err != nil {
		return false, err
	}
	found, err := s.match(ctx, rows.Rows)
	if err != nil {
		return false, err
	}
	s.page.Next = rows.Next
	for i := range rows.Rows {
		r := &rows.Rows[i]
		s.progress.Scanned++
		s.progress.Reached = &r.ReceivedAt
		switch found[i] {
		case textDamaged:
			s.progress.Damaged++
		case textFound:
			s.page.Rows = append(s.page.Rows, *r)
		}
		if len(s.page.Rows) == s.limit && (i+1 < len(rows.Rows) || rows.Next != "") {
			s.page.Next = s.f.cursor(makeOrder(r.ReceivedAt, makeRef(0, r.Seq)))
			return false, nil
		}
	}
	return s.page.Next != "", nil
}

type textMatch uint8

const (
	textAbsent textMatch = iota
	textFound
	textDamaged
)

// match reads the deliveries of rows in the order of the log, where neighbours cost one
// read, and says of each what was found.
func (s *textSearch) match(ctx context.Context, rows []Row) ([]textMatch, error) {
	found := make([]textMatch, len(rows))
	at := make([]int, len(rows))
	for i := range at {
		at[i] = i
	}
	slices.SortFunc(at, func(i, j int) int { return cmp.Compare(rows[i].Seq, rows[j].Seq) })
	for len(at) > 0 {
		n := 1
		for n < len(at) && rows[at[n]].Seq-rows[at[n-1]].Seq <= textGap {
			n++
		}
		if err := s.matchRun(ctx, rows, at[:n], found); err != nil {
			return nil, err
		}
		at = at[n:]
	}
	return found, nil
}

// matchRun reads a run of near neighbours; those that the run did not show are asked for
// one by one, which says why.
func (s *textSearch) matchRun(ctx context.Context, rows []Row, at []int, found []textMatch) error {
	if len(at) > 1 {
		j, first := s.a.logOf(rows[at[0]].Seq)
		r := j.newReader(first)
		defer r.Close()
		for len(at) > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			rec, ok, err := r.TryNext()
			if !ok || err != nil {
				break
			}
			for len(at) > 0 && rows[at[0]].Seq&^QuarantineBit < rec.Seq {
				s.matchOne(&rows[at[0]], &found[at[0]])
				at = at[1:]
			}
			if len(at) > 0 && rows[at[0]].Seq&^QuarantineBit == rec.Seq && rec.Delivery != nil {
				found[at[0]] = s.look(rec.Delivery)
				at = at[1:]
			}
		}
	}
	for _, i := range at {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.matchOne(&rows[i], &found[i])
	}
	return nil
}

func (s *textSearch) matchOne(r *Row, found *textMatch) {
	d, err := s.a.GetSeq(r.Seq)
	switch {
	case err == nil:
		*found = s.look(d)
	case !errors.Is(err, ErrNotFound): // retention was faster
		*found = textDamaged
	}
}

func (s *textSearch) look(d *Delivery) textMatch {
	if s.f.inText(d, s.needle) {
		return textFound
	}
	return textAbsent
}

// measure says how far the page has come, by the counts of the index.
func (s *textSearch) measure() error {
	x := s.a.index
	done, err := x.reading()
	if err != nil {
		return err
	}
	defer done()
	to := s.a.o.Now().Add(24 * time.Hour)
	if !s.f.To.IsZero() {
		to = s.f.To.Add(time.Minute - 1)
	}
	p := &s.progress
	if p.Total, err = s.count(to); err != nil {
		return err
	}
	if s.page.Next != "" {
		left := to
		if p.Reached != nil {
			left = *p.Reached
		}
		if p.Left, err = s.count(left); err != nil {
			return err
		}
	}
	s.page.Progress = p
	return nil
}

// count gives the deliveries from the beginning of the range to an end, by whole minutes.
func (s *textSearch) count(to time.Time) (int64, error) {
	minute := int64(time.Minute)
	t, err := sumCounts(s.a.index.db, countName(s.f.Source), nanos(s.f.From)/minute*60, nanos(to)/minute*60)
	if err != nil {
		return 0, fmt.Errorf("count deliveries: %w", err)
	}
	if s.f.Verdict != "" {
		return t[countColumn(s.f.Verdict)], nil
	}
	return t[0] + t[1] + t[2], nil
}

package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Counts of deliveries per minute, hour and day (UTC, by the time of receipt), each by
// source and over all sources (the empty name). They change in the batch that writes or
// deletes the row, so they are exact whenever the rows are; they are merged and not read first,
// which was a third of what building an index cost. The three levels make ninety days a walk over
// ninety keys and not over 130,000.

// countUnits are the levels, finest first, in seconds. They are part of the format.
var countUnits = [...]int64{60, 3600, 86400}

// countWidth is how many verdicts are counted: accepted, rejected, challenge.
const countWidth = 3

type tallyRow [countWidth]int64

func (t *tallyRow) add(o *tallyRow) {
	for i := range t {
		t[i] += o[i]
	}
}

func countColumn(verdict string) int {
	switch verdict {
	case Rejected.String():
		return 1
	case Challenge.String():
		return 2
	}
	return 0
}

// countMinute is one minute of one source.
type countMinute struct {
	minute int64
	source string
}

// countKey is 'c', the level, the source's name, a zero byte, and the unit's number
// since 1970.
func countKey(b []byte, level int, source string, unit int64) []byte {
	b = append(append(b[:0], keyCount, byte(level)), source...)
	return binary.BigEndian.AppendUint64(append(b, 0), uint64(unit))
}

func countName(source string) string { return strings.ReplaceAll(source, "\x00", "") }

func decodeCount(b []byte) (t tallyRow, err error) {
	for i := range t {
		v, n := binary.Varint(b)
		if n <= 0 {
			return t, errRow
		}
		t[i], b = v, b[n:]
	}
	return t, nil
}

// tally counts a row that comes (by 1) or goes (by -1) with the batch.
func (w *writer) tally(r *Row, by int64) {
	k := countMinute{minute: nanos(r.ReceivedAt) / int64(time.Minute), source: r.Source}
	t := w.counts[k]
	if t == nil {
		t = &tallyRow{}
		w.counts[k] = t
	}
	t[countColumn(r.Verdict)] += by
}

// putCounts writes what tally gathered.
func (w *writer) putCounts() error {
	if len(w.counts) == 0 {
		return nil
	}
	type place struct {
		level  int
		unit   int64
		source string
	}
	sums := make(map[place]*tallyRow, 8*len(w.counts))
	for k, t := range w.counts {
		for level, unit := range countUnits {
			for _, source := range [...]string{"", countName(k.source)} {
				p := place{level, k.minute * countUnits[0] / unit, source}
				if sums[p] == nil {
					sums[p] = &tallyRow{}
				}
				sums[p].add(t)
				if source == "" && countName(k.source) == "" {
					break
				}
			}
		}
	}
	clear(w.counts)
	for p, t := range sums {
		w.buf = countKey(w.buf, p.level, p.source, p.unit)
		if err := w.addCount(w.buf, t); err != nil {
			return fmt.Errorf("count deliveries of source %q: %w", p.source, err)
		}
	}
	return nil
}

func (w *writer) addCount(key []byte, by *tallyRow) error {
	if *by == (tallyRow{}) {
		return nil
	}
	w.value = by.append(w.value[:0])
	return w.batch.Merge(key, w.value, nil)
}

func (t *tallyRow) append(b []byte) []byte {
	for _, n := range t {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// sums merges counts. Where nothing is left, the key goes.
type sums struct{ t tallyRow }

func mergeCounts(value []byte) (*sums, error) {
	t, err := decodeCount(value)
	return &sums{t}, err
}

// MergeNewer adds a count.
func (s *sums) MergeNewer(value []byte) error {
	t, err := decodeCount(value)
	s.t.add(&t)
	return err
}

// MergeOlder adds a count.
func (s *sums) MergeOlder(value []byte) error { return s.MergeNewer(value) }

// Finish gives the sum.
func (s *sums) Finish(bool) ([]byte, io.Closer, error) { return s.t.append(nil), nil, nil }

// DeletableFinish gives the sum, and whether it is all there is and nothing.
func (s *sums) DeletableFinish(base bool) ([]byte, bool, io.Closer, error) {
	return s.t.append(nil), base && s.t == (tallyRow{}), nil, nil
}

// CountRow is how many deliveries there are, by verdict.
type CountRow struct {
	Accepted  int64 `json:"accepted"`
	Rejected  int64 `json:"rejected"`
	Challenge int64 `json:"challenge"`
}

// CountBucket is one bar of a histogram: what was received in a step of time.
type CountBucket struct {
	At time.Time `json:"at"` // its beginning
	CountRow
}

// Counts is a histogram of what is kept. Steps without a delivery are there, with zeros.
type Counts struct {
	From    time.Time           `json:"from"`
	To      time.Time           `json:"to"` // exclusive
	Step    int64               `json:"step_seconds"`
	Total   CountRow            `json:"total"`
	Sources map[string]CountRow `json:"sources"` // by source, over the same time
	Buckets []CountBucket       `json:"buckets"`
}

// MaxBuckets bounds one answer of Counts.
const MaxBuckets = 5000

// ErrCountRange is returned by Counts for a range or step it cannot answer (400).
var ErrCountRange = errors.New("not a range of time that can be counted")

// countSteps are what Counts chooses from where no step is given: at most 200 bars.
var countSteps = [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}

// Counts gives the deliveries that the index knows, received in [from, to), per step and
// verdict: of one source, or of all with source "". The range is widened to whole steps,
// which begin at multiples of the step since 1970 UTC. Step is whole minutes; 0 chooses
// one. Refusals that were sampled away are not among them (SampledAway counts those).
func (a *Archive) Counts(ctx context.Context, from, to time.Time, step time.Duration, source string) (Counts, error) {
	if a.index == nil {
		return Counts{}, ErrIndex
	}
	c, err := countFrame(from, to, step)
	if err != nil {
		return Counts{}, err
	}
	return c, a.index.fillCounts(ctx, &c, countName(source))
}

func countFrame(from, to time.Time, step time.Duration) (Counts, error) {
	if !from.Before(to) {
		return Counts{}, fmt.Errorf("%w: from %s is not before to %s", ErrCountRange, from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	if step == 0 {
		for _, step = range countSteps {
			if to.Sub(from) <= 200*step {
				break
			}
		}
	}
	if step < time.Minute || step%time.Minute != 0 {
		return Counts{}, fmt.Errorf("%w: step %s is not whole minutes", ErrCountRange, step)
	}
	s := int64(step / time.Second)
	first := from.Unix() / s * s
	last := (to.Add(-1).Unix()/s + 1) * s
	if from.Unix() < 0 || (last-first)/s > MaxBuckets {
		return Counts{}, fmt.Errorf("%w: %d steps of %s, the most is %d; take a longer step", ErrCountRange, (last-first)/s, step, MaxBuckets)
	}
	c := Counts{From: time.Unix(first, 0).UTC(), To: time.Unix(last, 0).UTC(), Step: s, Sources: map[string]CountRow{},
		Buckets: make([]CountBucket, (last-first)/s)}
	for i := range c.Buckets {
		c.Buckets[i].At = time.Unix(first+int64(i)*s, 0).UTC()
	}
	return c, nil
}

func (c *CountRow) add(t *tallyRow) {
	c.Accepted += t[0]
	c.Rejected += t[1]
	c.Challenge += t[2]
}

func (x *index) fillCounts(ctx context.Context, c *Counts, source string) error {
	done, err := x.reading()
	if err != nil {
		return err
	}
	defer done()
	level := 0
	for i, unit := range countUnits {
		if c.Step%unit == 0 {
			level = i
		}
	}
	unit := countUnits[level]
	first := c.From.Unix()
	// One state of the database, so that bars, sums and sources agree.
	snap := x.db.NewSnapshot()
	defer snap.Close()
	err = eachCount(snap, level, source, first/unit, c.To.Unix()/unit, func(n int64, t *tallyRow) {
		c.Buckets[(n*unit-first)/c.Step].add(t)
		c.Total.add(t)
	})
	if err != nil {
		return fmt.Errorf("count deliveries: %w", err)
	}
	names := []string{source}
	if source == "" {
		if names, err = countSources(snap); err != nil {
			return fmt.Errorf("count deliveries: %w", err)
		}
	}
	for _, name := range names {
		t, err := sumCounts(snap, name, first, c.To.Unix())
		if err = errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("count deliveries of source %q: %w", name, err)
		}
		if t != (tallyRow{}) {
			var row CountRow
			row.add(&t)
			c.Sources[name] = row
		}
	}
	return nil
}

// eachCount visits the units [from, to) of a level that have deliveries.
func eachCount(db pebble.Reader, level int, source string, from, to int64, visit func(unit int64, t *tallyRow)) error {
	if from >= to {
		return nil
	}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: countKey(nil, level, source, from), UpperBound: countKey(nil, level, source, to)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		t, err := decodeCount(it.Value())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		key := it.Key()
		visit(int64(binary.BigEndian.Uint64(key[len(key)-8:])), &t)
	}
	return it.Close()
}

// countSources lists the sources that have counts, by leaping over the days of each.
func countSources(db pebble.Reader) ([]string, error) {
	level := len(countUnits) - 1
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyCount, byte(level)}, UpperBound: []byte{keyCount, byte(level) + 1}})
	if err != nil {
		return nil, err
	}
	var names []string
	for ok := it.First(); ok; {
		key := it.Key()
		name := string(key[2 : len(key)-9])
		if name != "" {
			names = append(names, name)
		}
		ok = it.SeekGE(countKey(nil, level, name, math.MaxInt64))
	}
	return names, it.Close()
}

// sumCounts adds up what was received from one second to another, both whole minutes:
// days where there are whole days, then hours, then minutes.
func sumCounts(db pebble.Reader, source string, from, to int64) (sum tallyRow, err error) {
	return sum, sumLevel(db, source, len(countUnits)-1, from, to, &sum)
}

func sumLevel(db pebble.Reader, source string, level int, from, to int64, sum *tallyRow) error {
	if level < 0 || from >= to {
		return nil
	}
	unit := countUnits[level]
	first, last := (from+unit-1)/unit, to/unit
	if first >= last {
		return sumLevel(db, source, level-1, from, to, sum)
	}
	if err := eachCount(db, level, source, first, last, func(_ int64, t *tallyRow) { sum.add(t) }); err != nil {
		return err
	}
	return errors.Join(sumLevel(db, source, level-1, from, first*unit, sum), sumLevel(db, source, level-1, last*unit, to, sum))
}

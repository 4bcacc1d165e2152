package archive

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Values that many deliveries share (source, verdict, type, ...) and the way from a
// delivery to its row are not written one key each but in blocks, one per batch: a key costs
// about 2 us of CPU until the last compaction has seen it.
//
// A posting block holds the places of the rows that got one value in one batch and were
// received in one window of time. Windows do not overlap, so who reads them in order and
// sorts within each has the rows newest first. Nothing is ever taken out of a block: a row
// that lost a value or is gone is found there still, compared, and passed over. Values
// that rows are bound to lose (pending, held) therefore keep keys of their own.
//
// Where one delivery a second came, each had a window for itself and a key for each of its values
// (half an index of 10 million deliveries of 90 days took 511 s to build, as compactions sorted
// eight keys for each over and over; all of it takes 336 s so). So a batch that brings few rows of a long time, as it does when the log is read
// from its beginning, puts them into wide windows. Readers join both.
//
// A block of times maps consecutive deliveries of one log, all that were new in one batch.

// windows are the blocks of one width.
type windows struct {
	kind byte // of the keys
	bits uint // a window is 2^bits ns
}

var (
	// narrow windows have 1.07 s. At 2,000 deliveries/s one of a value that all of them have
	// is 10 KB to read.
	narrow = windows{keyBlock, 30}
	// wide ones have 275 s, and no more than 4,096 rows of one pass over the log.
	wide = windows{keyWide, 38}
)

const (
	// wideLeast is how many narrow windows the rows of a block must reach over to be worth a
	// wide one: far more than a batch does that was just received, however rare its value.
	wideLeast = 8
	// wideMost is how many rows there may be for each of these: to find one, all of a window are
	// read.
	wideMost = 16
)

// batchNo tells the blocks of batches apart. Positions only grow, and a crash loses the
// blocks that were written at a position together with it.
type batchNo uint64

func (ws windows) of(o []byte) uint64 { return binary.BigEndian.Uint64(o) >> ws.bits }

// widths says how a block of these places, sorted and of one wide window, is written.
func widths(places []order) windows {
	n := narrow.of(places[len(places)-1][:]) - narrow.of(places[0][:]) + 1
	if n >= wideLeast && uint64(len(places)) <= n*wideMost {
		return wide
	}
	return narrow
}

// run is how many of the sorted places are of the first one's window.
func (ws windows) run(places []order) int {
	window, n := ws.of(places[0][:]), 1
	for n < len(places) && ws.of(places[n][:]) == window {
		n++
	}
	return n
}

func kindOf(field byte, value string) valueKind {
	switch field {
	case byEventID, byOrderID, byPaymentID, byRequestID, byIdempotencyKey:
		return unique
	case byOutcome:
		if value == Pending || value == Held.String() {
			return single
		}
	}
	return common
}

// key is the part of a block's key up to its window; blockKey the whole of it.
func (ws windows) key(b []byte, k valueKey, window uint64) []byte {
	b = binary.BigEndian.AppendUint64(append(b[:0], ws.kind, k.field), k.hash)
	return binary.BigEndian.AppendUint64(b, window)
}

func (ws windows) blockKey(b []byte, k valueKey, window uint64, n batchNo) []byte {
	return binary.BigEndian.AppendUint64(ws.key(b, k, window), uint64(n))
}

// after is above all blocks of a value.
func (ws windows) after(k valueKey) []byte {
	return append(ws.key(nil, k, math.MaxUint64), bytes.Repeat([]byte{0xff}, 9)...)
}

// appendPlaces encodes sorted places: of each the uvarint distance of its time from the
// one before (the first from the window's begin) and the varint distance of its ref,
// whose lowest bit is the log.
func (ws windows) appendPlaces(b []byte, places []order) []byte {
	if len(places) == 0 {
		return b
	}
	at, last := ws.of(places[0][:])<<ws.bits, int64(0)
	for i := range places {
		t, r := binary.BigEndian.Uint64(places[i][:8]), places[i].ref()
		n := int64(r.seq())<<1 | int64(r.log())
		b = binary.AppendUvarint(b, t-at)
		b = binary.AppendVarint(b, n-last)
		at, last = t, n
	}
	return b
}

var errPosting = errors.New("a block of the index is cut short or holds an impossible number")

// readPlaces decodes what appendPlaces wrote for a window, appending to places.
func (ws windows) readPlaces(places []order, window uint64, b []byte) ([]order, error) {
	at, last := window<<ws.bits, int64(0)
	for len(b) > 0 {
		dt, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errPosting
		}
		dr, m := binary.Varint(b[n:])
		if m <= 0 || last+dr < 0 {
			return nil, errPosting
		}
		b = b[n+m:]
		at, last = at+dt, last+dr
		var o order
		binary.BigEndian.PutUint64(o[:8], at)
		binary.BigEndian.PutUint64(o[8:], ^uint64(makeRef(int(last&1), uint64(last>>1))))
		places = append(places, o)
	}
	return places, nil
}

// timeBlock is what a batch has to say of when its new deliveries were received.
type timeBlock struct {
	refs []ref
	at   []int64
}

// appendTimes encodes a block, whose key is its last ref: of each delivery the uvarint
// distance of its ref from the next one's (0 for the last, which stands first) and the
// varint distance of its time.
func appendTimes(b []byte, t *timeBlock) []byte {
	r, at := t.refs[len(t.refs)-1], int64(0)
	for i := len(t.refs) - 1; i >= 0; i-- {
		b = binary.AppendUvarint(b, uint64(r-t.refs[i]))
		b = binary.AppendVarint(b, t.at[i]-at)
		r, at = t.refs[i], t.at[i]
	}
	return b
}

// eachTime visits the deliveries of a block, the last one first, until visit returns false.
func eachTime(last ref, b []byte, visit func(r ref, at int64) bool) error {
	r, at := last, int64(0)
	for len(b) > 0 {
		dr, n := binary.Uvarint(b)
		if n <= 0 || dr > uint64(r) {
			return errPosting
		}
		dt, m := binary.Varint(b[n:])
		if m <= 0 {
			return errPosting
		}
		b = b[n+m:]
		r, at = r-ref(dr), at+dt
		if !visit(r, at) {
			return nil
		}
	}
	return nil
}

// receivedAt looks up when a delivery was received, in ns.
func receivedAt(db pebble.Reader, r ref) (at int64, found bool, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: seqKey(nil, r), UpperBound: seqKey(nil, logEnd(r))})
	if err != nil {
		return 0, false, fmt.Errorf("read times: %w", err)
	}
	if it.First() {
		err = eachTime(ref(binary.BigEndian.Uint64(it.Key()[1:])), it.Value(), func(have ref, t int64) bool {
			if have == r {
				at, found = t, true
			}
			return have > r
		})
	}
	if err = errors.Join(err, it.Close()); err != nil {
		return 0, false, fmt.Errorf("read time of seq=%d: %w", r.seq(), err)
	}
	return at, found, nil
}

// logEnd is above all refs of r's log.
func logEnd(r ref) ref {
	if r.log() == 1 {
		return ^ref(0)
	}
	return quarantineRef
}

// refsFrom lists up to n deliveries from first on and below end, in order.
func refsFrom(db pebble.Reader, first, end ref, n int) ([]ref, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: seqKey(nil, first), UpperBound: seqKey(nil, logEnd(first))})
	if err != nil {
		return nil, err
	}
	refs := make([]ref, 0, n)
	for ok := it.First(); ok && len(refs) < n; ok = it.Next() {
		begin := len(refs)
		if err = eachTime(ref(binary.BigEndian.Uint64(it.Key()[1:])), it.Value(), func(r ref, _ int64) bool {
			if r >= first && r < end {
				refs = append(refs, r)
			}
			return r >= first
		}); err != nil || len(refs) == begin {
			break
		}
		slices.Reverse(refs[begin:])
	}
	return refs[:min(n, len(refs))], errors.Join(err, it.Close())
}

// blocks gathers what a batch says in blocks.
type blocks struct {
	posts map[valueKey][]order
	times [2]timeBlock
	keys  []valueKey // of posts, in order
	buf   []byte
	value []byte
}

func (g *blocks) post(k valueKey, o order) { g.posts[k] = append(g.posts[k], o) }

func (g *blocks) time(r ref, at time.Time) {
	t := &g.times[r.log()]
	t.refs, t.at = append(t.refs, r), append(t.at, nanos(at))
}

// put writes them into the batch and begins anew.
func (g *blocks) put(batch *pebble.Batch, no batchNo) error {
	g.keys = g.keys[:0]
	for k := range g.posts {
		g.keys = append(g.keys, k)
	}
	slices.SortFunc(g.keys, func(a, b valueKey) int {
		return cmp.Or(cmp.Compare(a.field, b.field), cmp.Compare(a.hash, b.hash))
	})
	for _, k := range g.keys {
		places := g.posts[k]
		slices.SortFunc(places, func(a, b order) int { return bytes.Compare(a[:], b[:]) })
		for len(places) > 0 {
			end := wide.run(places)
			for ws, part := widths(places[:end]), places[:end]; len(part) > 0; {
				n := ws.run(part)
				g.buf = ws.blockKey(g.buf, k, ws.of(part[0][:]), no)
				g.value = ws.appendPlaces(g.value[:0], part[:n])
				if err := batch.Set(g.buf, g.value, nil); err != nil {
					return fmt.Errorf("index postings: %w", err)
				}
				part = part[n:]
			}
			places = places[end:]
		}
		// Kept for the next batch, unless hardly any delivery has the value.
		if len(g.posts[k]) > 1 {
			g.posts[k] = g.posts[k][:0]
		} else {
			delete(g.posts, k)
		}
	}
	if len(g.posts) > maxKeptPosts {
		clear(g.posts)
	}
	for log := range g.times {
		t := &g.times[log]
		if len(t.refs) == 0 {
			continue
		}
		g.buf = seqKey(g.buf, t.refs[len(t.refs)-1])
		g.value = appendTimes(g.value[:0], t)
		if err := batch.Set(g.buf, g.value, nil); err != nil {
			return fmt.Errorf("index times: %w", err)
		}
		t.refs, t.at = t.refs[:0], t.at[:0]
	}
	return nil
}

// maxKeptPosts bounds the lists that are kept for reuse between batches.
const maxKeptPosts = 1024

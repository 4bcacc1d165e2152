package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// Ids (of events, orders, payments, requests) have almost as many values as there are rows: a
// key for each would be five of the seven keys that a delivery costs, at random places, and
// compactions would sort them over and over. They are written in buckets instead: a shelf
// takes the ids of about 800,000 deliveries, in 4,096 buckets by their hash. A batch appends
// what it has for a bucket (a merge), so a busy gateway writes a key for each 30 ids. Who
// looks for an id reads one bucket of each shelf, some 10 KB, and compares the rows that are
// named there. Shelves are filled one after another, so compactions leave the old ones alone.
//
// Nothing is taken out of a bucket, as nothing is of a block: a shelf goes when no row is
// left of its times.

const (
	shelfIDs    = 4 << 20 // how many ids make a shelf full
	bucketBits  = 12
	bucketCount = 1 << bucketBits
	idHashSize  = 5 // bytes of a hash in a bucket, which has some bits of it in its key
	// shelfSame is how often a value (or what shares its slot) may stand on one shelf: an
	// "id" that half of the deliveries have is in blocks from there on. A slot of a full shelf
	// has 64 ids where they are what they should be.
	shelfSame = 2048
	slotBits  = 16
)

// idMix spreads a value's hash, and tells equal values of different fields apart.
func (k valueKey) idMix() uint64 {
	h := (k.hash ^ uint64(k.field)<<57) * 0x9e3779b97f4a7c15
	h = (h ^ h>>32) * 0xd6e8feb86659fd93
	return h ^ h>>32
}

// A shelf's number is inverted in its keys: newest first.
func shelfKey(b []byte, no uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b[:0], keyShelf), ^no)
}

func bucketKey(b []byte, no uint32, bucket uint16) []byte {
	b = binary.BigEndian.AppendUint32(append(b[:0], keyBucket), ^no)
	return binary.BigEndian.AppendUint16(b, bucket)
}

// shelf is what is known of one: its number, how many ids it has, and the newest and oldest
// place of a row that they name.
type shelf struct {
	no             uint32
	ids            uint64
	newest, oldest order
}

func (s *shelf) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b[:0], s.ids)
	return append(append(b, s.newest[:]...), s.oldest[:]...)
}

var errShelf = errors.New("a shelf of the index has an impossible length")

func readShelf(key, b []byte) (s shelf, err error) {
	if len(key) != 5 || len(b) != 8+2*orderSize {
		return s, errShelf
	}
	return shelf{no: ^binary.BigEndian.Uint32(key[1:]), ids: binary.BigEndian.Uint64(b), newest: order(b[8:]), oldest: order(b[8+orderSize:])}, nil
}

func (s *shelf) add(o order) {
	if s.ids == 0 || bytes.Compare(o[:], s.newest[:]) < 0 {
		s.newest = o
	}
	if s.ids == 0 || bytes.Compare(o[:], s.oldest[:]) > 0 {
		s.oldest = o
	}
	s.ids++
}

// eachShelf visits the shelves, the newest first, until visit returns false.
func eachShelf(it *pebble.Iterator, visit func(shelf) bool) error {
	for ok := it.First(); ok; ok = it.Next() {
		s, err := readShelf(it.Key(), it.Value())
		if err != nil {
			return err
		}
		if !visit(s) {
			return nil
		}
	}
	return it.Error()
}

func shelfBounds() *pebble.IterOptions {
	return &pebble.IterOptions{LowerBound: []byte{keyShelf}, UpperBound: []byte{keyShelf + 1}}
}

// id is one on its way into a bucket.
type id struct {
	mix uint64
	at  order
}

// ids gathers those of a batch.
type ids struct {
	shelf  shelf
	full   uint64 // ids of a full shelf
	most   uint16 // shelfSame
	same   [1 << slotBits]uint16
	list   []id
	sorted []uint32 // places in list, by bucket
	buf    []byte
	value  []byte
}

// load goes on with the shelf that was being filled.
func (g *ids) load(db pebble.Reader) error {
	it, err := db.NewIter(shelfBounds())
	if err != nil {
		return fmt.Errorf("read shelves: %w", err)
	}
	g.shelf = shelf{no: 1}
	return errors.Join(eachShelf(it, func(s shelf) bool { g.shelf = s; return false }), it.Close())
}

// post takes an id; false: its value is too common for a bucket.
func (g *ids) post(k valueKey, o order) bool {
	mix := k.idMix()
	if n := &g.same[mix>>(64-slotBits)]; *n < g.most {
		*n++
		g.list = append(g.list, id{mix, o})
		return true
	}
	return false
}

// put writes them into the batch, bucket after bucket, and begins anew.
func (g *ids) put(batch *pebble.Batch) error {
	if len(g.list) == 0 {
		return nil
	}
	if g.shelf.ids >= g.full {
		g.shelf = shelf{no: g.shelf.no + 1}
		clear(g.same[:])
	}
	var begin [bucketCount + 1]uint32
	for i := range g.list {
		begin[g.list[i].mix>>(64-bucketBits)+1]++
		g.shelf.add(g.list[i].at)
	}
	for b := range bucketCount {
		begin[b+1] += begin[b]
	}
	if cap(g.sorted) < len(g.list) {
		g.sorted = make([]uint32, cap(g.list))
	}
	sorted, next := g.sorted[:len(g.list)], begin
	for i := range g.list {
		b := g.list[i].mix >> (64 - bucketBits)
		sorted[next[b]] = uint32(i)
		next[b]++
	}
	for b := range bucketCount {
		if places := sorted[begin[b]:begin[b+1]]; len(places) > 0 {
			g.buf = bucketKey(g.buf, g.shelf.no, uint16(b))
			g.value = g.appendIDs(g.value[:0], places)
			if err := batch.Merge(g.buf, g.value, nil); err != nil {
				return fmt.Errorf("index ids: %w", err)
			}
		}
	}
	g.list = g.list[:0]
	g.buf, g.value = shelfKey(g.buf, g.shelf.no), g.shelf.append(g.value)
	if err := batch.Set(g.buf, g.value, nil); err != nil {
		return fmt.Errorf("index shelf: %w", err)
	}
	return nil
}

// appendIDs encodes what a batch has for a bucket: how many, and of each 5 bytes of its hash,
// the varint distance of its place's time from the one before (the first: from 0) and the
// varint distance of its ref, whose lowest bit is the log.
func (g *ids) appendIDs(b []byte, places []uint32) []byte {
	b = binary.AppendUvarint(b, uint64(len(places)))
	at, last := int64(0), int64(0)
	for _, i := range places {
		e := &g.list[i]
		var hash [8]byte
		binary.BigEndian.PutUint64(hash[:], e.mix<<bucketBits)
		b = append(b, hash[:idHashSize]...)
		t, n := int64(^binary.BigEndian.Uint64(e.at[:8])), e.at.ref().signed() //nolint:gosec // what makeOrder took from an int64
		b = binary.AppendVarint(b, t-at)
		b = binary.AppendVarint(b, n-last)
		at, last = t, n
	}
	return b
}

// signed is a ref as a small number, whose lowest bit is the log.
func (r ref) signed() int64 { return int64(r.seq())<<1 | int64(r.log()) } //nolint:gosec // a seq has 47 bits

// readIDs appends the places that a bucket gives for a hash.
func readIDs(places []order, mix uint64, b []byte) ([]order, error) {
	var hash [8]byte
	binary.BigEndian.PutUint64(hash[:], mix<<bucketBits)
	for len(b) > 0 {
		left, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errPosting
		}
		b = b[n:]
		at, last := int64(0), int64(0)
		for ; left > 0; left-- {
			if len(b) < idHashSize {
				return nil, errPosting
			}
			same := string(b[:idHashSize]) == string(hash[:idHashSize])
			b = b[idHashSize:]
			dt, n := binary.Varint(b)
			if n <= 0 {
				return nil, errPosting
			}
			dr, m := binary.Varint(b[n:])
			if m <= 0 {
				return nil, errPosting
			}
			b = b[n+m:]
			if at, last = at+dt, last+dr; at < 0 || last < 0 {
				return nil, errPosting
			}
			if same {
				var o order
				binary.BigEndian.PutUint64(o[:8], ^uint64(at))
				binary.BigEndian.PutUint64(o[8:], ^uint64(makeRef(int(last&1), uint64(last>>1))))
				places = append(places, o)
			}
		}
	}
	return places, nil
}

// indexMerger lays what batches have for a bucket one behind the other, in any order, and adds counts up.
var indexMerger = &pebble.Merger{
	Name: "penstock.lists",
	Merge: func(key, value []byte) (pebble.ValueMerger, error) {
		if key[0] == keyCount {
			return mergeCounts(value)
		}
		return &lists{bytes.Clone(value)}, nil
	},
}

type lists struct{ b []byte }

// MergeNewer adds a list.
func (l *lists) MergeNewer(value []byte) error {
	l.b = append(l.b, value...)
	return nil
}

// MergeOlder adds a list.
func (l *lists) MergeOlder(value []byte) error { return l.MergeNewer(value) }

// Finish gives them all.
func (l *lists) Finish(bool) ([]byte, io.Closer, error) { return l.b, nil, nil }

// sweepShelves deletes the shelves of whose times no row is left. The one that is being
// filled stays: batches in memory may belong to it.
func (w *writer) sweepShelves() error {
	it, err := w.x.db.NewIter(shelfBounds())
	if err != nil {
		return err
	}
	var empty []uint32
	var failed error
	err = eachShelf(it, func(s shelf) bool {
		var any bool
		if any, failed = hasRows(w.x.db, s.newest, s.oldest); !any && s.no != w.ids.shelf.no {
			empty = append(empty, s.no)
		}
		return failed == nil
	})
	if err = errors.Join(err, failed, it.Close()); err != nil {
		return err
	}
	for _, no := range empty {
		if err := errors.Join(w.batch.DeleteRange(bucketKey(nil, no, 0), bucketKey(nil, no, bucketCount), nil), w.batch.Delete(shelfKey(nil, no), nil)); err != nil {
			return err
		}
	}
	return nil
}

// hasRows says whether there is a row from one place to another, both included.
func hasRows(db pebble.Reader, from, to order) (bool, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: rowKey(nil, from), UpperBound: append(rowKey(nil, to), 0)})
	if err != nil {
		return false, err
	}
	return it.First(), it.Close()
}

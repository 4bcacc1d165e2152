package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// epochDoc is one state of a source's definition and routing.
type epochDoc struct {
	source string
	data   []byte
}

// epochTable holds the epochs that were registered in this life. Lookups are on the
// way of every delivery: the map is replaced, never changed.
type epochTable struct {
	mu   sync.Mutex // one writer at a time
	docs atomic.Pointer[map[uint64]*epochDoc]
}

func (t *epochTable) get(id uint64) *epochDoc {
	if m := t.docs.Load(); m != nil {
		return (*m)[id]
	}
	return nil
}

func (t *epochTable) put(id uint64, doc *epochDoc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := map[uint64]*epochDoc{id: doc}
	if old := t.docs.Load(); old != nil {
		for k, v := range *old {
			next[k] = v
		}
	}
	t.docs.Store(&next)
}

// epochID is never 0, which means "no epoch".
func epochID(source string, doc []byte) uint64 {
	h := sha256.New()
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(source)))
	h.Write(n[:])
	h.Write([]byte(source))
	h.Write(doc)
	return max(binary.LittleEndian.Uint64(h.Sum(nil)), 1)
}

// RegisterEpoch makes a source's definition and routing (no secrets) known and gives
// the id that its deliveries carry: a hash, so the same document has the same id in
// every life. It is written before the first delivery that uses it, in each segment.
func (a *Archive) RegisterEpoch(source string, doc []byte) uint64 {
	id := epochID(source, doc)
	if a.epochs.get(id) == nil {
		a.epochs.put(id, &epochDoc{source: source, data: append([]byte(nil), doc...)})
	}
	return id
}

// Epoch gives the document of an epoch. near is the seq of a delivery that uses it:
// what this life did not register is read from that delivery's segment. ErrNotFound
// when it is not there.
func (a *Archive) Epoch(id, near uint64) ([]byte, error) {
	if doc := a.epochs.get(id); doc != nil {
		return append([]byte(nil), doc.data...), nil
	}
	if doc := a.oldEpochs.get(id); doc != nil {
		return append([]byte(nil), doc...), nil
	}
	j, seq := a.logOf(near)
	doc, err := j.findEpoch(id, seq)
	if err != nil {
		return nil, fmt.Errorf("epoch %016x near seq=%d: %w", id, near, err)
	}
	a.oldEpochs.put(id, doc)
	return append([]byte(nil), doc...), nil
}

// findEpoch reads the segment of seq: before the delivery, or, where recovery carried
// that over, behind it.
func (j *journal) findEpoch(id, seq uint64) ([]byte, error) {
	seg, f, err := j.acquire(seq)
	if err != nil {
		return nil, err
	}
	if seg == nil {
		return nil, ErrNotFound
	}
	defer seg.release()
	sc := seg.scan(f, segmentHead)
	var dec payloadReader
	for {
		it, err := sc.next()
		if errors.Is(err, io.EOF) {
			return nil, ErrNotFound
		}
		if err != nil {
			return nil, err
		}
		if !it.isFrame() || it.frame.typ != typeMarker {
			continue
		}
		if rec, err := dec.record(it.frame); err == nil && rec.Marker.Kind == EpochMarker && rec.Marker.ID == id {
			return rec.Marker.Data, nil
		}
	}
}

// epochCache keeps the documents that were read from segments. There are as many as
// there were configurations since the oldest unpublished delivery.
type epochCache struct {
	mu   sync.Mutex
	docs map[uint64][]byte
}

const maxEpochCache = 1024

func (c *epochCache) get(id uint64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.docs[id]
}

func (c *epochCache) put(id uint64, doc []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.docs == nil || len(c.docs) >= maxEpochCache {
		c.docs = make(map[uint64][]byte)
	}
	c.docs[id] = doc
}

package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
)

// pinsDir holds deliveries that somebody was promised until a certain time, each in a file
// of its own: retention removes whole segments, oldest first, and one large body must not
// keep all that came after it.
//
// Its name says which delivery, its seq, and until when (ID.SEQ.UNIXTIME). Integers are little
// endian. Format version 2:
//
//	offset size
//	0      8    "PENSTPIN"
//	8      2    format version, 2
//	10     1    flags: bit 0 = sealed (seal.go)
//	11     1    0
//	12     4    CRC32C over the payload
//	16     4    CRC32C over bytes 0..15
//	20     n    payload: a delivery (codec.go)
//
// Bytes 0 to 9 and 16 to 19 mean the same in every version to come. Version 1, which is read
// and not written, has no head: 4 bytes of CRC32C over the payload, or its complement where
// that is sealed, and the payload.
const (
	pinsDir    = "pins"
	pinHalf    = "tmp" // a file that is being written
	pinMagic   = "PENSTPIN"
	pinVersion = 2
	pinHead    = 20
)

// pins are those files, by delivery id.
type pins struct {
	fs   FS
	dir  string
	keys *Keys  // nil: nothing is encrypted
	made *names // the files that were there at the start

	mu sync.Mutex // protects at; held while a file is written, so that there is one per delivery
	at map[string]pin
}

type pin struct {
	seq   uint64
	until time.Time
	size  int64 // of the file
}

// total is how many deliveries are pinned and what their files take.
func (p *pins) total() (n int, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.at {
		size += at.size
	}
	return len(p.at), size
}

func (p pin) name(id string) string { return fmt.Sprintf("%s.%d.%d", id, p.seq, p.until.Unix()) }

// openPins reads which deliveries are pinned; the directory comes with the first.
func openPins(fsys FS, dir string, keys *Keys) (*pins, error) {
	p := &pins{fs: fsys, dir: filepath.Join(dir, pinsDir), keys: keys, at: map[string]pin{}}
	p.made = &names{fs: fsys, dir: p.dir}
	names, err := fsys.List(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", p.dir, err)
	}
	for _, name := range names {
		if name == pinHalf {
			_ = fsys.Remove(filepath.Join(p.dir, name)) // it is tried again at the next start
			continue
		}
		part := strings.Split(name, ".")
		if len(part) != 3 {
			continue // nothing of ours
		}
		seq, err1 := strconv.ParseUint(part[1], 10, 64)
		until, err2 := strconv.ParseInt(part[2], 10, 64)
		if err1 != nil || err2 != nil {
			continue // nothing of ours
		}
		if old, ok := p.at[part[0]]; !ok || old.until.Unix() < until {
			at := pin{seq: seq, until: time.Unix(until, 0)}
			if f, err := fsys.Open(filepath.Join(p.dir, name), false); err == nil {
				at.size, _ = f.Size() // only shown
				_ = f.Close()
			}
			p.at[part[0]] = at
		}
	}
	return p, nil
}

// Pin keeps a delivery readable by its id until then, whatever retention removes. It has
// been done durably when it returns nil.
func (a *Archive) Pin(d *Delivery, until time.Time) error {
	id, err := ulid.ParseStrict(d.ID)
	if err != nil {
		return fmt.Errorf("pin delivery %q: %w", d.ID, err)
	}
	p := a.pins
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.at[d.ID]; ok && !old.until.Before(until.Truncate(time.Second)) {
		return p.made.settle()
	}
	next := pin{seq: d.Seq, until: until.Truncate(time.Second)}
	b, err := p.encode(d, id)
	if next.size = int64(len(b)); err == nil {
		err = p.write(next.name(d.ID), b)
	}
	if err != nil {
		return fmt.Errorf("pin delivery %s: %w", d.ID, err)
	}
	if old, ok := p.at[d.ID]; ok && old.name(d.ID) != next.name(d.ID) {
		_ = p.fs.Remove(filepath.Join(p.dir, old.name(d.ID))) // the longer one counts
	}
	p.at[d.ID] = next
	return nil
}

// encode makes the file. What is sealed has a salt of its own.
func (p *pins) encode(d *Delivery, id ulid.ULID) ([]byte, error) {
	b := append(make([]byte, 0, pinHead+deliverySize(d)), pinMagic...)
	b = binary.LittleEndian.AppendUint16(b, pinVersion)
	b = append(b, 0, 0)
	payload := putDelivery(nil, d, id)
	if p.keys != nil {
		at := d.ReceivedAt.UnixNano()
		if err := p.keys.ready(d.Source, at); err != nil {
			return nil, err
		}
		s, salt := &sealer{keys: p.keys}, rand.Uint64()
		buf, from := s.begin(putDeliveryHead(beginFrame(nil), d, id), salt)
		buf = s.end(putDeliveryRest(buf, d), 0, from, salt, typeDelivery, d.Seq, keyName{d.Source, monthOf(at)})
		payload, b[10] = buf[frameHead:], frameSealed
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, payload...), nil
}

// decodePin gives the payload of a file and the flags of its frame.
func decodePin(b []byte) (payload []byte, flags uint8, err error) {
	le := binary.LittleEndian
	version, err := pinFormat(b)
	switch {
	case err != nil:
		return nil, 0, err
	case version == pinVersion:
		if le.Uint32(b[12:]) != crc32.Checksum(b[pinHead:], castagnoli) {
			return nil, 0, ErrCorrupt
		}
		return b[pinHead:], b[10], nil
	case len(b) < 4:
		return nil, 0, ErrCorrupt
	}
	switch crc := crc32.Checksum(b[4:], castagnoli); le.Uint32(b) {
	case crc:
		return b[4:], 0, nil
	case ^crc:
		return b[4:], frameSealed, nil
	}
	return nil, 0, ErrCorrupt
}

// pinFormat reads the format version off the beginning of a file. What has no head that
// verifies is of version 1, or damaged.
func pinFormat(b []byte) (version uint16, err error) {
	le := binary.LittleEndian
	if len(b) < pinHead || string(b[:len(pinMagic)]) != pinMagic || le.Uint32(b[16:]) != crc32.Checksum(b[:16], castagnoli) {
		return 1, nil
	}
	if version = le.Uint16(b[8:]); version > pinVersion {
		return version, newer(uint64(version), pinVersion)
	}
	return version, nil
}

func (p *pins) write(name string, b []byte) error {
	if err := p.fs.MkdirAll(p.dir); err != nil {
		return err
	}
	tmp := filepath.Join(p.dir, pinHalf)
	_ = p.fs.Remove(tmp) // of a write that failed
	f, err := p.fs.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = p.fs.Remove(tmp)
		return err
	}
	if err := p.fs.Rename(tmp, filepath.Join(p.dir, name)); err != nil {
		return err
	}
	return p.fs.SyncDir(p.dir)
}

// get reads a pinned delivery.
func (p *pins) get(id string) (*Delivery, error) {
	p.mu.Lock()
	at, ok := p.at[id]
	p.mu.Unlock()
	if !ok {
		return nil, ErrNotFound
	}
	b, err := p.read(at.name(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound // it expired meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("read pinned delivery %s: %w", id, err)
	}
	payload, flags, err := decodePin(b)
	if err != nil {
		return nil, fmt.Errorf("pinned delivery %s: %w", id, err)
	}
	f := frame{typ: typeDelivery, seq: at.seq, flags: flags, payload: payload}
	dec := payloadReader{keys: p.keys}
	rec, err := dec.record(f)
	if erased := (*ErasedError)(nil); errors.As(err, &erased) {
		return nil, erased
	}
	if err != nil {
		return nil, fmt.Errorf("pinned delivery %s: %w: %w", id, ErrCorrupt, err)
	}
	return rec.Delivery, nil
}

func (p *pins) read(name string) ([]byte, error) {
	f, err := p.fs.Open(filepath.Join(p.dir, name), false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	return b, err
}

// expire removes what was promised until before now.
func (p *pins) expire(now time.Time, log *zap.Logger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, at := range p.at {
		if !at.until.Before(now) {
			continue
		}
		if err := p.fs.Remove(filepath.Join(p.dir, at.name(id))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("a pinned delivery that expired stays", zap.String("delivery", id), zap.Error(err))
			continue
		}
		delete(p.at, id)
	}
}

package archive

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

func tagOf(head []byte) tag {
	return tag{number: binary.LittleEndian.Uint64(head[tagOffset:]), salt: binary.LittleEndian.Uint64(head[tagOffset+8:])}
}

// maxTorn bounds what is kept of a torn write; a batch is smaller.
const maxTorn = 256 << 20

// keepTorn copies the bytes of a torn write into a file beside the segment, if there
// are any: behind the last record of a sound segment there are zeros, or what the file
// held in its former life, which has another tag.
func (r *recovery) keepTorn(seg *segment, bad region) {
	if r.look {
		return
	}
	f, err := seg.acquire()
	if err != nil {
		return
	}
	defer seg.release()
	size := min(bad.size, maxTorn)
	b := make([]byte, size)
	n, _ := f.ReadAt(b, bad.off) // what cannot be read cannot be kept
	b = b[:n]
	if seg.head.recycled {
		b = ofThisLife(b, seg.head.tag)
	}
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 {
		return
	}
	name := seg.name + tornSuffix
	if err := r.writeTorn(name, bad.off, b); err != nil {
		r.note(seg.name, "%d bytes at offset %d were never synced and are cut; they could not be kept: %v", len(b), bad.off, err)
		return
	}
	r.note(seg.name, "%d bytes at offset %d were never synced and are cut; they are kept in %s", len(b), bad.off, name)
}

// ofThisLife cuts off what a recycled file held before: everything behind the last
// frame with our tag. Where only the inside of a frame was written, nothing is kept.
func ofThisLife(b []byte, t tag) []byte {
	pattern := t.bytes()
	i := bytes.LastIndex(b, pattern[:])
	if i < tagOffset {
		return nil
	}
	end := len(b)
	if size, why := frameSize(b[i-tagOffset:], t); why == "" {
		end = int(min(int64(i-tagOffset)+size, int64(end)))
	}
	return b[:end]
}

// writeTorn appends to the file of cut bytes: 8 offset, 8 length, the bytes.
func (r *recovery) writeTorn(name string, off int64, b []byte) error {
	path := r.path(name)
	f, err := r.fs.Open(path, true)
	if err != nil {
		if f, err = r.fs.Create(path); err != nil {
			return err
		}
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size+int64(len(b)) > maxTorn {
		return fmt.Errorf("%s holds %d bytes already", name, size)
	}
	rec := binary.LittleEndian.AppendUint64(nil, uint64(off))
	rec = binary.LittleEndian.AppendUint64(rec, uint64(len(b)))
	rec = append(rec, b...)
	if _, err := f.WriteAt(rec, size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return r.fs.SyncDir(r.dir)
}

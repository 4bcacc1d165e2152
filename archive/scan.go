package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// region is a stretch of a segment that holds no readable frame.
type region struct {
	off, size int64
	why       string // what is wrong with its first frame
}

// scanner reads the frames of one segment in order. What does not verify it steps
// over: the next frame that does is found by the segment's tag. It is not safe for
// concurrent use.
type scanner struct {
	src io.ReaderAt
	tag tag
	off int64  // of the next frame
	end int64  // nothing at or beyond it is looked at; may grow between calls
	seq uint64 // of the last frame; the next has a higher one

	buf     []byte // a window of the file, at bufOff
	bufOff  int64
	chunk   int  // how much is read at once
	salvage bool // pages that cannot be read count as zeros instead of as an error
	packed  bool // what is read are the blocks of a packed segment, whose base is no offset of theirs
}

// salvagePage is the unit in which an unreadable part of a disk is stepped over.
const salvagePage = 4096

// scanItem is either a frame or a region without one.
type scanItem struct {
	frame  frame
	region region
}

func (it *scanItem) isFrame() bool { return it.frame.size > 0 }

// next gives the next frame or bad region, io.EOF at the end. A frame's payload is
// valid until the next call.
func (s *scanner) next() (scanItem, error) {
	if s.off >= s.end {
		return scanItem{}, io.EOF
	}
	f, why, err := s.frameAt(s.off)
	if err != nil {
		return scanItem{}, err
	}
	if why == "" {
		s.accept(f)
		return scanItem{frame: f}, nil
	}
	start := s.off
	at, err := s.resync(start + 1)
	if err != nil {
		return scanItem{}, err
	}
	s.off = at
	if p, ok := s.src.(*packedFile); ok {
		if block := p.why(start, at); block != "" {
			why = block
		}
	}
	return scanItem{region: region{off: start, size: at - start, why: why}}, nil
}

func (s *scanner) accept(f frame) {
	s.off = f.off + f.size
	if f.typ.record() {
		s.seq = f.seq
	}
}

// frameAt decodes the frame at off, or says why there is none.
func (s *scanner) frameAt(off int64) (frame, string, error) {
	if s.end-off < frameHead {
		return frame{}, badTag, nil
	}
	head, err := s.window(off, frameHead)
	if err != nil {
		return frame{}, "", err
	}
	size, why := frameSize(head, s.tag)
	if why != "" {
		return frame{}, why, nil
	}
	if size > s.end-off {
		return frame{}, badLength, nil
	}
	b, err := s.window(off, int(size))
	if err != nil {
		return frame{}, "", err
	}
	f, why := decodeFrame(b, off)
	if p, ok := s.src.(*packedFile); ok && why == badSum && p.isShut(off) {
		f, why = frameOf(b, off), ""
	}
	// A frame below its own base, or with a seq that was there before, was not written
	// by us at this place.
	if why == "" && (f.base > off && !s.packed || f.typ.record() && f.seq <= s.seq) {
		return frame{}, badTag, nil
	}
	return f, why, nil
}

// resync gives the offset of the first frame at or after from that verifies, or end.
func (s *scanner) resync(from int64) (int64, error) {
	pattern := s.tag.bytes()
	for pos := from + tagOffset; pos+tagSize <= s.end; {
		n := int(min(int64(s.chunkSize()), s.end-pos))
		b, err := s.window(pos, n)
		if err != nil {
			return 0, err
		}
		i := bytes.Index(b, pattern[:])
		if i < 0 {
			// The pattern may lie across the edge of two windows.
			pos += int64(max(n-tagSize+1, 1))
			continue
		}
		at := pos + int64(i) - tagOffset
		f, why, err := s.frameAt(at)
		if err != nil {
			return 0, err
		}
		if why == "" && f.size > 0 {
			return at, nil
		}
		pos += int64(i) + 1
	}
	return s.end, nil
}

func (s *scanner) chunkSize() int {
	if s.chunk == 0 {
		s.chunk = 256 << 10
	}
	return s.chunk
}

// window gives n bytes at off, which must lie below end. What lies beyond the end of
// the file reads as zeros: a segment may be shorter than its successor claims.
func (s *scanner) window(off int64, n int) ([]byte, error) {
	have := s.bufOff + int64(len(s.buf))
	if off >= s.bufOff && off+int64(n) <= have {
		return s.buf[off-s.bufOff:][:n], nil
	}
	want := int(min(int64(max(n, s.chunkSize())), s.end-off))
	want = max(want, n)
	keep := 0
	if off >= s.bufOff && off < have {
		keep = copy(s.buf, s.buf[off-s.bufOff:])
	}
	if cap(s.buf) < want {
		grown := make([]byte, want)
		copy(grown, s.buf[:keep])
		s.buf = grown
	}
	s.buf = s.buf[:want]
	s.bufOff = off
	if err := s.fill(s.buf[keep:], off+int64(keep)); err != nil {
		s.buf = s.buf[:keep]
		return nil, err
	}
	return s.buf[:n], nil
}

func (s *scanner) fill(b []byte, off int64) error {
	n, err := s.src.ReadAt(b, off)
	if err == nil || n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		clear(b[n:])
		return nil
	}
	if !s.salvage {
		return fmt.Errorf("read %d bytes at offset %d: %w", len(b), off, err)
	}
	for at := 0; at < len(b); {
		step := int(salvagePage - (off+int64(at))%salvagePage)
		part := b[at:min(at+step, len(b))]
		if n, err := s.src.ReadAt(part, off+int64(at)); err != nil && n < len(part) {
			clear(part[n:])
		}
		at += len(part)
	}
	return nil
}

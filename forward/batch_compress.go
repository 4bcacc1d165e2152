package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// String gives the compression's word in the configuration.
func (c Compression) String() string {
	switch c {
	case CompressionNone:
		return "none"
	case CompressionGzip:
		return "gzip"
	case CompressionSnappy:
		return "snappy"
	case CompressionLZ4:
		return "lz4"
	case CompressionZstd:
		return "zstd"
	}
	return fmt.Sprintf("compression(%d)", int8(c))
}

// codec compresses the records of a batch in the framing that Java clients expect. It
// is safe for concurrent use, and its output is a function of its input.
type codec struct {
	kind  Compression
	zstd  *zstd.Encoder
	gzips *sync.Pool // *gzip.Writer
	lz4s  *sync.Pool // *lz4.Writer
}

func newCodec(c Compression) (codec, error) {
	k := codec{kind: c}
	switch c {
	case CompressionNone, CompressionSnappy:
	case CompressionGzip:
		k.gzips = &sync.Pool{New: func() any { return gzip.NewWriter(nil) }}
	case CompressionLZ4:
		// 64 KiB independent blocks without a content checksum, as Kafka's own
		// KafkaLZ4BlockOutputStream writes them; the batch has its CRC.
		k.lz4s = &sync.Pool{New: func() any {
			w := lz4.NewWriter(nil)
			_ = w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1))
			return w
		}}
	case CompressionZstd:
		// The window covers a batch; the default one would cost each of the encoder's
		// states 8 MiB. EncodeAll starts no goroutine and needs no Close.
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20),
			zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
		if err != nil {
			return codec{}, fmt.Errorf("make a zstd encoder: %w", err)
		}
		k.zstd = w
	default:
		return codec{}, fmt.Errorf("unknown %s", c)
	}
	return k, nil
}

// compress appends the compressed form of raw to dst.
func (k *codec) compress(dst, raw []byte) ([]byte, error) {
	switch k.kind {
	case CompressionGzip:
		w := k.gzips.Get().(*gzip.Writer)
		defer k.gzips.Put(w)
		sink := bytes.NewBuffer(dst)
		w.Reset(sink)
		if _, err := w.Write(raw); err != nil {
			return dst, err
		}
		err := w.Close()
		return sink.Bytes(), err
	case CompressionSnappy:
		return appendSnappy(dst, raw), nil
	case CompressionLZ4:
		w := k.lz4s.Get().(*lz4.Writer)
		defer k.lz4s.Put(w)
		sink := bytes.NewBuffer(dst)
		w.Reset(sink)
		if _, err := w.Write(raw); err != nil {
			return dst, err
		}
		err := w.Close()
		return sink.Bytes(), err
	case CompressionZstd:
		return k.zstd.EncodeAll(raw, dst), nil
	}
	return append(dst, raw...), nil
}

// Java's snappy stream (org.xerial.snappy.SnappyOutputStream): magic, version 1,
// lowest compatible version 1, then blocks of at most 32 KiB, each with its int32 length.
const (
	snappyMagic = "\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
	snappyBlock = 32 << 10
)

func appendSnappy(dst, raw []byte) []byte {
	dst = append(dst, snappyMagic...)
	for len(raw) > 0 {
		block := raw[:min(len(raw), snappyBlock)]
		raw = raw[len(block):]
		at := len(dst)
		room := 4 + s2.MaxEncodedLen(len(block))
		if cap(dst)-at < room {
			dst = append(dst, make([]byte, room)...)
		}
		dst = dst[:at+room]
		enc := s2.EncodeSnappy(dst[at+4:], block)
		binary.BigEndian.PutUint32(dst[at:], uint32(len(enc)))
		dst = dst[:at+4+len(enc)]
	}
	return dst
}

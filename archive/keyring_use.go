package archive

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ofIndex gives the key of the index, a new one where there is none. It is not sure that
// it is on the disk: an index whose key is lost is built anew.
func (k *Keys) ofIndex() ([]byte, error) {
	k.changing.Lock()
	defer k.changing.Unlock()
	if k.index != nil {
		return k.index, nil
	}
	key := make([]byte, KeyBytes)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	k.index = key
	if k.there.Load() {
		_ = k.save(*k.names.Load()) // or with the next key
	}
	return key, nil
}

// openName names a key that bodies are sealed under.
type openName struct {
	keyName
	salt  uint64
	label string
}

// maxOpenKeys bounds the derived keys that are kept: about 1 KiB each.
const maxOpenKeys = 2048

// aead gives the key that a record was sealed under.
func (k *Keys) aead(n openName) (cipher.AEAD, error) {
	k.cacheMu.Lock()
	defer k.cacheMu.Unlock()
	if a := k.cache[n]; a != nil {
		return a, nil
	}
	s := (*k.names.Load())[n.keyName]
	if s == nil {
		return nil, errNoSuchKey
	}
	if !s.erased.IsZero() {
		return nil, &ErasedError{Source: n.source, Month: monthText(n.month), At: s.erased}
	}
	a, err := s.derive(n.salt, n.label)
	if err != nil {
		return nil, err
	}
	if len(k.cache) >= maxOpenKeys {
		clear(k.cache)
	}
	k.cache[n] = a
	return a, nil
}

func (s *sourceKey) derive(salt uint64, label string) (cipher.AEAD, error) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], salt)
	key, err := hkdf.Key(sha256.New, s.key[:], b[:], label, KeyBytes)
	if err != nil {
		return nil, err
	}
	return newGCM(key)
}

// errNoSuchKey: the keyring was lost and made anew, or is of another archive.
var errNoSuchKey = errors.New("the keyring has no key for it")

// ErasedError says that a record can be read by nobody any more, on purpose. It is an
// ErrCorrupt, so that whoever asks for a body is answered 410 with it.
type ErasedError struct {
	Seq      uint64
	Source   string
	Month    string
	At       time.Time
	Delivery *Delivery // what is left of it: seq, id, time, source, epoch and verdict
}

// Error says what was erased, and when.
func (e *ErasedError) Error() string {
	return fmt.Sprintf("it was erased: the key of source %s for %s was destroyed on %s", e.Source, e.Month, e.At.UTC().Format(time.DateOnly))
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *ErasedError) Is(target error) bool { return target == ErrCorrupt }

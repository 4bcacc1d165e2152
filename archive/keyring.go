package archive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The keyring holds a key per source and month, each wrapped by the configured key. The
// bodies are sealed under keys that are derived from those (seal.go): the configured key
// can be changed without a look at them, and what a source sent in a month can be erased
// by destroying 32 bytes.
//
// The file `keyring` is text: a line "penstock keyring 1", one JSON document, a line
// "crc32c " with the checksum (8 digits, hexadecimal) of all before it. In the document
// "check" is a constant, sealed, by which a wrong key is known, and "keys" is a list of
// source, month, created, and either key (base64 of 12 bytes nonce and the sealed key,
// with source and month as its additional data) or erased (when); "index" is the key of
// the index, wrapped too, and may be missing: then the index is built anew. "wrapped_by" is
// the fingerprint of the configured key, for people (older ones have none). The wrapping key is
// HKDF-SHA256 of the configured one, the fingerprint 4 bytes of it under a label of its own.
//
// Every version to come has a first line "penstock keyring N" and the last line, so that a
// newer one can be told from a damaged one. This is version 1.
//
// It is replaced whole: written, synced, renamed, the directory synced; then, the same
// way, `keyring.copy`, which is read where the first is damaged: without its keys an
// archive is lost.
const (
	keyringName  = "keyring"
	keyringCopy  = "keyring.copy"
	keyringNew   = "keyring.new"
	keyringMagic = "penstock keyring "
	keyringFirst = keyringMagic + "1\n"
	keyringSum   = "crc32c "

	keyringVersion = 1
	wrapLabel      = "penstock archive keyring 1"
	printLabel     = "penstock archive fingerprint 1"
	keyringCheck   = "penstock archive"
	indexAAD       = "\x00index"

	// KeyBytes is the size of a key.
	KeyBytes = 32
	// maxKeyring bounds what is read: a thousand sources for twenty years have 60 MB.
	maxKeyring = 256 << 20
)

// Errors of keys. Open and OpenKeys give them before anything is written.
var (
	// ErrNoKey: the archive is encrypted, and no key was given.
	ErrNoKey = errors.New("the archive is encrypted: give its key (archive.encryption.key)")
	// ErrWrongKey: the keyring is wrapped by another key.
	ErrWrongKey = errors.New("the archive's keyring is wrapped by another key: put the old one among archive.encryption.previous, or give it back")
	// ErrKeyring: the keyring is damaged, with its copy, or gone.
	ErrKeyring = errors.New("the archive's keyring cannot be used")
	// ErrNotEncrypted: there is no keyring, so no key to destroy.
	ErrNotEncrypted = errors.New("the archive is not encrypted")
	// ErrMonth: the month is none, or its key is still in use.
	ErrMonth = errors.New("the month cannot be erased")
)

// Encryption is what an archive is encrypted with.
type Encryption struct {
	Key      []byte   // 32 bytes
	Previous [][]byte // keys that were in force before; what they wrap is wrapped again under Key
}

// keyName says which key: the month is year*12 + month-1, UTC.
type keyName struct {
	source string
	month  uint32
}

func monthOf(ns int64) uint32 {
	t := time.Unix(0, ns).UTC()
	return uint32(t.Year()*12 + int(t.Month()) - 1)
}

func monthText(m uint32) string { return fmt.Sprintf("%04d-%02d", m/12, m%12+1) }

func parseMonth(s string) (uint32, error) {
	t, err := time.Parse("2006-01", s)
	if err != nil {
		return 0, fmt.Errorf("%w: %q is not of the form 2006-01", ErrMonth, s)
	}
	return uint32(t.Year()*12 + int(t.Month()) - 1), nil
}

func (n keyName) aad() []byte { return []byte(n.source + "\x00" + monthText(n.month)) }

// sourceKey is the key of a source and month, or when it was destroyed.
type sourceKey struct {
	key     [KeyBytes]byte
	created time.Time
	erased  time.Time
}

// Keys is an archive's keyring, opened. It is safe for concurrent use.
type Keys struct {
	fs       FS
	dir      string
	files    *names // of dir
	wrapping wrapping
	now      func() time.Time
	findings []finding
	rewrap   bool // something is wrapped by a previous key, or the copy does not say the same

	there    atomic.Bool // the file is on stable storage
	changing sync.Mutex  // one change at a time
	index    []byte      // the key of the index; nil: there is none
	names    atomic.Pointer[map[keyName]*sourceKey]

	cacheMu sync.Mutex
	cache   map[openName]cipher.AEAD
}

// OpenKeys opens the keyring of the archive in dir for reading, beside a running gateway
// or of a copy. It is nil, without an error, where the archive is not encrypted.
func OpenKeys(dir string, e Encryption) (*Keys, error) {
	if !Encrypted(dir) {
		return nil, nil
	}
	return loadKeys(lookFS{OS()}, dir, &e)
}

// Encrypted says whether the archive in dir has a keyring.
func Encrypted(dir string) bool { return hasKeyring(OS(), dir) }

func hasKeyring(fsys FS, dir string) bool {
	names, err := fsys.List(dir)
	return err == nil && (slices.Contains(names, keyringName) || slices.Contains(names, keyringCopy))
}

// wrapping is a configured key, as it is used.
type wrapping struct {
	cipher.AEAD
	print string // its fingerprint
}

func newWrapping(key []byte) (w wrapping, err error) {
	if len(key) != KeyBytes {
		return w, fmt.Errorf("a key has %d bytes, not %d", len(key), KeyBytes)
	}
	k, err := hkdf.Key(sha256.New, key, nil, wrapLabel, KeyBytes)
	if err != nil {
		return w, err
	}
	print, err := hkdf.Key(sha256.New, key, nil, printLabel, 4)
	if err != nil {
		return w, err
	}
	w.print = hex.EncodeToString(print)
	w.AEAD, err = newGCM(k)
	return w, err
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// loadKeys reads the keyring. With e nil there must be none. Nothing is written.
func loadKeys(fsys FS, dir string, e *Encryption) (*Keys, error) {
	there := hasKeyring(fsys, dir)
	if e == nil || len(e.Key) == 0 {
		if there {
			return nil, ErrNoKey
		}
		return nil, nil
	}
	k := &Keys{fs: fsys, dir: dir, files: &names{fs: fsys, dir: dir}, now: time.Now, cache: map[openName]cipher.AEAD{}}
	k.names.Store(&map[keyName]*sourceKey{})
	var opening []wrapping
	for _, key := range append([][]byte{e.Key}, e.Previous...) {
		w, err := newWrapping(key)
		if err != nil {
			return nil, fmt.Errorf("open the keyring: %w", err)
		}
		opening = append(opening, w)
	}
	k.wrapping = opening[0]
	if !there {
		return k, nil
	}
	k.there.Store(true)
	first, err := readKeyring(fsys, filepath.Join(dir, keyringName), opening)
	if errors.Is(err, ErrWrongKey) {
		if _, err2 := readKeyring(fsys, filepath.Join(dir, keyringCopy), opening); err2 == nil {
			// The copy is not used all the same: it may hold keys that were destroyed since.
			err = fmt.Errorf("%w. A change of the key did not end: %s is wrapped by one that was given, %s by the new one already. Give the new one",
				err, keyringCopy, keyringName)
		}
		return nil, err
	}
	if errors.Is(err, ErrNewer) {
		return nil, fmt.Errorf("%s: %w", keyringName, err)
	}
	second, err2 := readKeyring(fsys, filepath.Join(dir, keyringCopy), opening)
	if errors.Is(err2, ErrNewer) {
		return nil, fmt.Errorf("%s: %w", keyringCopy, err2)
	}
	use := first
	switch {
	case err != nil && err2 != nil:
		return nil, fmt.Errorf("%w: %w; its copy: %w", ErrKeyring, err, err2)
	case err != nil:
		k.findings = append(k.findings, finding{file: keyringName, damage: true, text: fmt.Sprintf("cannot be used (%v); its copy is", err)})
		use, k.rewrap = second, true
	case errors.Is(err2, ErrWrongKey):
		k.findings = append(k.findings, finding{file: keyringCopy, text: "is wrapped by another key: a change of the key did not end; it is written anew"})
		k.rewrap = true
	case err2 != nil:
		k.findings = append(k.findings, finding{file: keyringCopy, damage: !errors.Is(err2, errNoFile), text: fmt.Sprintf("cannot be used (%v); it is written anew with the next start", err2)})
		k.rewrap = true
	}
	k.rewrap = k.rewrap || use.old || second != nil && (second.old || !first.says(second))
	k.names.Store(&use.names)
	k.index = use.index
	return k, nil
}

// ready makes sure that source has a key for the month of ns, on stable storage. That it
// has one costs a look into a map.
func (k *Keys) ready(source string, ns int64) error {
	name := keyName{source, monthOf(ns)}
	if s := (*k.names.Load())[name]; s != nil && s.erased.IsZero() {
		return nil
	}
	return k.create(name)
}

// create makes the key of a source's new month. The sources that had one the month before
// get theirs along: at the turn of a month the file is written once, not a hundred times.
func (k *Keys) create(name keyName) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	have := *k.names.Load()
	if s := have[name]; s != nil {
		if s.erased.IsZero() {
			return nil
		}
		return fmt.Errorf("%w: the key of source %s for %s was destroyed on %s, and the clock says that it is still %s",
			ErrUnavailable, name.source, monthText(name.month), s.erased.Format(time.DateOnly), monthText(name.month))
	}
	next := maps.Clone(have)
	want := []keyName{name}
	for other := range have {
		if other.month+1 == name.month {
			want = append(want, keyName{other.source, name.month})
		}
	}
	for _, n := range want {
		if next[n] != nil {
			continue
		}
		s := &sourceKey{created: k.now().UTC().Truncate(time.Second)}
		if _, err := rand.Read(s.key[:]); err != nil {
			return fmt.Errorf("%w: make a key: %w", ErrUnavailable, err)
		}
		next[n] = s
	}
	if err := k.save(next); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// begin makes sure that there is a keyring before there is a segment that wants one, and
// that the one which was found is on the disk.
func (k *Keys) begin() error {
	if k == nil {
		return nil
	}
	k.changing.Lock()
	defer k.changing.Unlock()
	if k.there.Load() && !k.rewrap {
		return k.files.settle()
	}
	return k.save(*k.names.Load())
}

// tidy wraps again what a previous key wraps, and repairs one file from the other.
func (k *Keys) tidy() error {
	k.changing.Lock()
	defer k.changing.Unlock()
	if !k.rewrap {
		return nil
	}
	return k.save(*k.names.Load())
}

// eraseAfter is how long a month must be over: what was received in it may still be on its
// way to the disk.
const eraseAfter = time.Hour

// erase destroys the key of a source's month, in both files: what it sealed can be read by
// nobody, ever. Only a month that is over can be erased. It says when, if that was done
// before.
func (k *Keys) erase(source, month string) (before time.Time, err error) {
	m, err := parseMonth(month)
	if err != nil {
		return before, err
	}
	if m >= monthOf(k.now().Add(-eraseAfter).UnixNano()) {
		return before, fmt.Errorf("%w: %s is not over, or not for an hour: its key is still in use", ErrMonth, month)
	}
	k.changing.Lock()
	defer k.changing.Unlock()
	have := *k.names.Load()
	s := have[keyName{source, m}]
	if s == nil {
		return before, fmt.Errorf("%w: there is no key of source %q for %s", ErrNotFound, source, month)
	}
	if !s.erased.IsZero() {
		if k.rewrap { // the copy may have it still
			err = k.save(have)
		}
		return s.erased, err
	}
	next := maps.Clone(have)
	next[keyName{source, m}] = &sourceKey{created: s.created, erased: k.now().UTC().Truncate(time.Second)}
	// With its key the hashes go that the index has of the month's values.
	k.index = nil
	return before, k.save(next)
}

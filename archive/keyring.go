package archive

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// keyringDoc is the document of the file.
type keyringDoc struct {
	By    string       `json:"wrapped_by,omitempty"`
	Check []byte       `json:"check"`
	Index []byte       `json:"index,omitempty"`
	Keys  []keyringKey `json:"keys"`
}

type keyringKey struct {
	Source  string     `json:"source"`
	Month   string     `json:"month"`
	Created time.Time  `json:"created"`
	Key     []byte     `json:"key,omitempty"`
	Erased  *time.Time `json:"erased,omitempty"`
}

// keyringRead is a file that was read.
type keyringRead struct {
	names map[keyName]*sourceKey
	index []byte
	old   bool // it is wrapped by a previous key
}

// says whether two files say the same: between the one and the other a save may have ended.
func (r *keyringRead) says(o *keyringRead) bool {
	return r != nil && bytes.Equal(r.index, o.index) && maps.EqualFunc(r.names, o.names, func(a, b *sourceKey) bool {
		return a.key == b.key && a.erased.Equal(b.erased)
	})
}

var errNoFile = errors.New("it is not there")

func readKeyring(fsys FS, path string, opening []wrapping) (*keyringRead, error) {
	text, err := readWhole(fsys, path)
	if err != nil {
		return nil, err
	}
	doc, err := parseKeyring(text)
	if err != nil {
		return nil, err
	}
	with := -1
	for i, w := range opening {
		if plain, err := unwrap(w, doc.Check, nil); err == nil && string(plain) == keyringCheck {
			with = i
			break
		}
	}
	if with < 0 {
		return nil, wrongKey(doc, opening)
	}
	r := &keyringRead{names: make(map[keyName]*sourceKey, len(doc.Keys)), old: with > 0}
	if r.index, err = unwrap(opening[with], doc.Index, []byte(indexAAD)); err != nil || len(r.index) != KeyBytes {
		r.index = nil // it can be had again
	}
	for _, e := range doc.Keys {
		month, err := parseMonth(e.Month)
		if err != nil {
			return nil, err
		}
		name, s := keyName{e.Source, month}, &sourceKey{created: e.Created}
		if e.Erased != nil {
			s.erased = *e.Erased
		} else {
			plain, err := unwrap(opening[with], e.Key, name.aad())
			if err != nil || len(plain) != KeyBytes {
				return nil, fmt.Errorf("the key of source %q for %s does not open", e.Source, e.Month)
			}
			s.key = [KeyBytes]byte(plain)
		}
		r.names[name] = s
	}
	return r, nil
}

// wrongKey says which key it wants and which were given.
func wrongKey(doc *keyringDoc, opening []wrapping) error {
	var given []string
	for _, w := range opening {
		given = append(given, w.print)
	}
	if doc.By == "" {
		return ErrWrongKey
	}
	return fmt.Errorf("%w (it wants the key with fingerprint %s; given: %s)", ErrWrongKey, doc.By, strings.Join(given, ", "))
}

func readWhole(fsys FS, path string) ([]byte, error) {
	f, err := fsys.Open(path, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoFile, err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > maxKeyring {
		return nil, fmt.Errorf("it has %d bytes", size)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) && err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

func parseKeyring(text []byte) (*keyringDoc, error) {
	rest, ok := bytes.CutPrefix(text, []byte(keyringMagic))
	if !ok {
		return nil, errors.New("it does not begin as a keyring")
	}
	number, rest, _ := bytes.Cut(rest, []byte("\n"))
	i := bytes.LastIndex(rest, []byte("\n"+keyringSum))
	if i < 0 {
		return nil, errors.New("it does not end as a keyring")
	}
	want := fmt.Sprintf("%s%08x\n", keyringSum, crc32.Checksum(text[:len(text)-len(rest)+i+1], castagnoli))
	if string(rest[i+1:]) != want {
		return nil, errors.New("its checksum does not match")
	}
	version, err := strconv.ParseUint(string(number), 10, 32)
	switch {
	case err != nil || version == 0:
		return nil, fmt.Errorf("its format %q is none", number)
	case version > keyringVersion:
		return nil, newer(version, keyringVersion)
	}
	var doc keyringDoc
	if err := json.Unmarshal(rest[:i], &doc); err != nil {
		return nil, err
	}
	return &doc, nil
}

func wrap(aead cipher.AEAD, plain, aad []byte) ([]byte, error) {
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return aead.Seal(nonce, nonce, plain, aad), nil
}

func unwrap(aead cipher.AEAD, b, aad []byte) ([]byte, error) {
	if len(b) < aead.NonceSize() {
		return nil, errPayload
	}
	return aead.Open(nil, b[:aead.NonceSize()], b[aead.NonceSize():], aad)
}

// text makes the file.
func (k *Keys) text(names map[keyName]*sourceKey) ([]byte, error) {
	doc := keyringDoc{By: k.wrapping.print, Keys: []keyringKey{}}
	var err error
	if doc.Check, err = wrap(k.wrapping, []byte(keyringCheck), nil); err != nil {
		return nil, err
	}
	if k.index != nil {
		if doc.Index, err = wrap(k.wrapping, k.index, []byte(indexAAD)); err != nil {
			return nil, err
		}
	}
	for name, s := range names {
		e := keyringKey{Source: name.source, Month: monthText(name.month), Created: s.created}
		if !s.erased.IsZero() {
			e.Erased = &s.erased
		} else if e.Key, err = wrap(k.wrapping, s.key[:], name.aad()); err != nil {
			return nil, err
		}
		doc.Keys = append(doc.Keys, e)
	}
	slices.SortFunc(doc.Keys, func(a, b keyringKey) int { return bytes.Compare([]byte(a.Month+a.Source), []byte(b.Month+b.Source)) })
	body, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		return nil, err
	}
	text := append([]byte(keyringFirst), body...)
	text = append(text, '\n')
	return fmt.Appendf(text, "%s%08x\n", keyringSum, crc32.Checksum(text, castagnoli)), nil
}

// save makes names durable. After an error the file may hold them or not; nobody uses
// a key that is not known to be there. Caller holds changing.
func (k *Keys) save(names map[keyName]*sourceKey) error {
	k.rewrap = true // until both files say the same
	text, err := k.text(names)
	if err != nil {
		return err
	}
	for _, name := range []string{keyringName, keyringCopy} {
		if err := k.replace(name, text); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	k.names.Store(&names)
	k.there.Store(true)
	k.rewrap = false
	k.cacheMu.Lock()
	clear(k.cache)
	k.cacheMu.Unlock()
	return nil
}

func (k *Keys) replace(name string, text []byte) error {
	tmp := filepath.Join(k.dir, keyringNew)
	_ = k.fs.Remove(tmp) // a half of an earlier attempt; where it cannot be removed Create says so
	f, err := k.fs.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := k.fs.Rename(tmp, filepath.Join(k.dir, name)); err != nil {
		return err
	}
	return k.fs.SyncDir(k.dir)
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

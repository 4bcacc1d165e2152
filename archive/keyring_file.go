package archive

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
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
	"time"
)

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

// Package vault keeps secrets that do not stand in the configuration: credentials of
// merchants that the API put, and secrets that a provider's handshake delivered. Each is a
// file of its own, sealed with AES-256-GCM under a key that is derived from the archive's,
// and on stable storage before anybody is told that it is kept.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// KeyBytes is the size of a key.
const KeyBytes = 32

// maxFile bounds one sealed file; a key set is some KiB.
const maxFile = 4 << 20

// Kind says what an entry is.
type Kind string

// The kinds.
const (
	Tenant   Kind = "tenant"   // a merchant's credentials; Name is the merchant
	Captured Kind = "captured" // a secret of a handshake; Name is the credential
)

// Entry is what is kept under a source, a kind and a name.
type Entry struct {
	Source string              `json:"source"`
	Kind   Kind                `json:"kind"`
	Name   string              `json:"name"`
	Values map[string][]string `json:"values"` // by credential
	At     time.Time           `json:"at"`
	By     string              `json:"by,omitempty"` // the token's name
}

// ErrKept is an entry that is there already: only an operator may take it away.
var ErrKept = errors.New("a secret is kept already, and a later handshake never replaces it")

// ErrWrongKey is a vault that was sealed under another key.
var ErrWrongKey = errors.New("the vault is sealed under another key: put the old one among archive.encryption.previous, or give it back")

// ErrDamaged is an entry that is there and cannot be read.
var ErrDamaged = errors.New("the kept secret is damaged")

// Vault is an open directory. It is safe for concurrent use; one process has it at a time
// (the archive's lock sees to that).
type Vault struct {
	dir     string
	sealing cipher.AEAD
	opening []cipher.AEAD // the sealing one first

	mu      sync.RWMutex
	entries map[id]Entry
	damaged map[string]error // by file name: what is there and cannot be read
	files   files
}

type id struct {
	source string
	kind   Kind
	name   string
}

// Open reads the vault in dir, which is made with its first entry. Entries are sealed
// under key; what was sealed under a previous one is sealed again. A file that cannot be
// read is named by Damaged and keeps nobody else from being served.
func Open(dir string, key []byte, previous ...[]byte) (*Vault, error) {
	v, err := open(dir, key, previous, disk{})
	if err != nil {
		return nil, err
	}
	return v, v.reseal()
}

// Read is Open for another process beside the one that has the vault: it writes nothing.
func Read(dir string, key []byte, previous ...[]byte) (*Vault, error) {
	return open(dir, key, previous, disk{})
}

func open(dir string, key []byte, previous [][]byte, f files) (*Vault, error) {
	v := &Vault{dir: dir, entries: map[id]Entry{}, damaged: map[string]error{}, files: f}
	for i, k := range append([][]byte{key}, previous...) {
		if len(k) != KeyBytes {
			return nil, fmt.Errorf("open the vault: a key has %d bytes, not %d", len(k), KeyBytes)
		}
		aead, err := newAEAD(k)
		if err != nil {
			return nil, fmt.Errorf("open the vault: %w", err)
		}
		v.opening = append(v.opening, aead)
		if i == 0 {
			v.sealing = aead
		}
	}
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	return v, v.load(list)
}

// newAEAD derives the vault's key, so that no other use of the archive's key meets it.
func newAEAD(key []byte) (cipher.AEAD, error) {
	k, err := hkdf.Key(sha256.New, key, nil, "penstock vault 1", KeyBytes)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (v *Vault) load(list []os.DirEntry) error {
	read, wrong := 0, 0
	for _, f := range list {
		if f.IsDir() || !strings.HasSuffix(f.Name(), suffix) {
			continue // what a crash left of a write ends otherwise
		}
		e, err := v.read(f.Name())
		if err == nil {
			read++
			v.entries[id{e.Source, e.Kind, e.Name}] = e
			continue
		}
		if errors.Is(err, errSeal) {
			wrong++
		}
		v.damaged[f.Name()] = err
	}
	if read == 0 && wrong > 0 {
		return fmt.Errorf("%s: %w", v.dir, ErrWrongKey)
	}
	return nil
}

var errSeal = errors.New("the seal does not hold: it is damaged, or sealed under another key")

const suffix = ".sealed"

// magic begins every file; the digit is the format's.
const magic = "PSV1"

// fileName is a name that tells neither source nor merchant, and is always the same: what
// is damaged is still known to be there.
func fileName(i id) string {
	h := hmac.New(sha256.New, []byte("penstock vault file 1"))
	for _, s := range []string{i.source, string(i.kind), i.name} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]) + suffix
}

func (v *Vault) read(name string) (Entry, error) {
	path := filepath.Join(v.dir, name)
	info, err := os.Stat(path)
	if err != nil {
		return Entry{}, err
	}
	if info.Size() > maxFile {
		return Entry{}, fmt.Errorf("it has %d bytes", info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Entry{}, err
	}
	n := len(magic) + v.sealing.NonceSize()
	if len(b) < n || string(b[:len(magic)]) != magic {
		return Entry{}, errSeal
	}
	for _, aead := range v.opening {
		// The name is sealed with it: one merchant's file does not open as another's.
		plain, err := aead.Open(nil, b[len(magic):n], b[n:], []byte(magic+name))
		if err != nil {
			continue
		}
		var e Entry
		if err := json.Unmarshal(plain, &e); err != nil {
			return Entry{}, fmt.Errorf("it holds no entry: %w", err)
		}
		return e, nil
	}
	return Entry{}, errSeal
}

func (v *Vault) write(e Entry) error {
	plain, err := json.Marshal(e)
	if err != nil {
		return err
	}
	name := fileName(id{e.Source, e.Kind, e.Name})
	b := make([]byte, len(magic)+v.sealing.NonceSize(), len(magic)+v.sealing.NonceSize()+len(plain)+v.sealing.Overhead())
	copy(b, magic)
	nonce := b[len(magic):]
	rand.Read(nonce) // never fails (Go 1.24)
	b = v.sealing.Seal(b, nonce, plain, []byte(magic+name))
	return v.files.write(v.dir, name, b)
}

// Put keeps e in the place of what was there. It returns when e is on stable storage; an
// error means that what was there is still what counts.
func (v *Vault) Put(e Entry) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.put(e)
}

func (v *Vault) put(e Entry) error {
	if err := v.write(e); err != nil {
		return fmt.Errorf("keep a %s secret of source %s: %w", e.Kind, e.Source, err)
	}
	i := id{e.Source, e.Kind, e.Name}
	v.entries[i] = e
	delete(v.damaged, fileName(i))
	return nil
}

// Capture keeps what a handshake delivered, unless something is kept already: then it is
// ErrKept, also where that cannot be read any more. The same secret again is nil.
func (v *Vault) Capture(source, credential, secret string, at time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := id{source, Captured, credential}
	if _, bad := v.damaged[fileName(i)]; bad {
		return ErrKept
	}
	if was, ok := v.entries[i]; ok {
		if kept := was.Values[credential]; len(kept) == 1 && hmac.Equal([]byte(kept[0]), []byte(secret)) {
			return nil
		}
		return ErrKept
	}
	return v.put(Entry{Source: source, Kind: Captured, Name: credential, Values: map[string][]string{credential: {secret}}, At: at})
}

// Delete takes an entry away, readable or not. It returns when that is on stable storage;
// false means that there was none.
func (v *Vault) Delete(source string, kind Kind, name string) (bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := id{source, kind, name}
	file := fileName(i)
	_, there := v.entries[i]
	if _, bad := v.damaged[file]; !there && !bad {
		return false, nil
	}
	if err := v.files.remove(v.dir, file); err != nil {
		return true, fmt.Errorf("take away a %s secret of source %s: %w", kind, source, err)
	}
	delete(v.entries, i)
	delete(v.damaged, file)
	return true, nil
}

// Get gives one entry. An error is ErrDamaged: it is there and cannot be read.
func (v *Vault) Get(source string, kind Kind, name string) (e Entry, ok bool, err error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	i := id{source, kind, name}
	if cause, bad := v.damaged[fileName(i)]; bad {
		return Entry{}, false, fmt.Errorf("%w (%s: %w)", ErrDamaged, fileName(i), cause)
	}
	e, ok = v.entries[i]
	return e, ok, nil
}

// List gives the entries of a source and kind by name.
func (v *Vault) List(source string, kind Kind) (out []Entry) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for i, e := range v.entries {
		if i.source == source && i.kind == kind {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Damaged names the files that are there and cannot be read, each with the reason.
func (v *Vault) Damaged() (out []string) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(v.damaged)) {
		out = append(out, fmt.Sprintf("%s: %v", filepath.Join(v.dir, name), v.damaged[name]))
	}
	return out
}

// reseal seals under the key in force what a previous one sealed.
func (v *Vault) reseal() error {
	if len(v.opening) == 1 {
		return nil
	}
	only := &Vault{dir: v.dir, sealing: v.sealing, opening: v.opening[:1]}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, e := range v.entries {
		if _, err := only.read(fileName(i)); err == nil {
			continue
		}
		if err := v.write(e); err != nil {
			return fmt.Errorf("seal the vault under the new key: %w", err)
		}
	}
	return nil
}

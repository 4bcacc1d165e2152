package archive

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// What is done to a keyring by commands, with the archive closed or, where it says so, open.

// Rekey wraps the keyring of the archive in dir by another key, with the archive closed.
// previous are the keys that it may be wrapped by now. Bodies are not touched.
func Rekey(dir string, key []byte, previous ...[]byte) error {
	return rekey(OS(), dir, key, previous...)
}

func rekey(fsys FS, dir string, key []byte, previous ...[]byte) error {
	return withKeys(fsys, dir, Encryption{Key: key, Previous: previous}, func(k *Keys) error {
		k.rewrap = true
		return k.tidy()
	})
}

// EraseKey destroys the key of a source's month, with the archive closed, and the index,
// which knows ids of what it sealed and is rebuilt with the next start. It says when, if
// that was done before.
func EraseKey(dir string, e Encryption, source, month string) (before time.Time, err error) {
	err = withKeys(OS(), dir, e, func(k *Keys) error {
		if before, err = k.erase(source, month); err != nil {
			return err
		}
		return removeIndex(filepath.Join(dir, indexDir))
	})
	return before, err
}

// EraseKey destroys the key of a source's month while the archive is open, and the key of
// the index with it: what the index has of the month cannot be read from then on, and the
// next start builds the index anew. It says when, if that was done before.
func (a *Archive) EraseKey(source, month string) (before time.Time, err error) {
	if a.keys == nil {
		return before, ErrNotEncrypted
	}
	return a.keys.erase(source, month)
}

func withKeys(fsys FS, dir string, e Encryption, f func(*Keys) error) (err error) {
	if !hasKeyring(fsys, dir) {
		return fmt.Errorf("%w: %s has none", ErrKeyring, dir)
	}
	if err := refuseNewer(fsys, dir); err != nil {
		return err
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return fmt.Errorf("stop the gateway first: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	k, err := loadKeys(fsys, dir, &e)
	if err != nil {
		return err
	}
	return f(k)
}

// checkKeyring says what is wrong with the two files of the keyring, without a key.
func checkKeyring(fsys FS, dir string) (found []finding) {
	if !hasKeyring(fsys, dir) {
		return nil
	}
	for _, name := range []string{keyringName, keyringCopy} {
		text, err := readWhole(fsys, filepath.Join(dir, name))
		if err == nil {
			_, err = parseKeyring(text)
		}
		switch {
		case errors.Is(err, errNoFile) && name == keyringCopy:
			found = append(found, finding{file: name, text: "is not there; the next start writes it"})
		case err != nil:
			found = append(found, finding{file: name, damage: true, text: fmt.Sprintf("cannot be used: %v", err)})
		}
	}
	return found
}

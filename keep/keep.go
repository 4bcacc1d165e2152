// Package keep holds small documents on disk, each whole after a crash: the old one or the
// new one, never a part. The vault's secrets, the keys that providers publish and their
// address lists are kept this way.
package keep

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// writing begins the name of a file that is not whole yet.
const writing = ".writing-"

// Dir is a directory of documents. One process writes it; others may read beside.
type Dir string

// Write replaces the document whole. It returns nil when that is on stable storage under
// its name; an error, or a crash before, leaves the old or the new one.
func (d Dir) Write(name string, b []byte) error {
	if err := d.make(); err != nil {
		return err
	}
	f, err := os.CreateTemp(string(d), writing+"*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), d.path(name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return sync(string(d))
}

// Read gives a document; fs.ErrNotExist where there is none.
func (d Dir) Read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

// Remove returns when the document is gone from stable storage; none is no error.
func (d Dir) Remove(name string) error {
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return sync(string(d))
}

// Names are the documents with this ending. A directory that is not there has none.
func (d Dir) Names(ending string) ([]string, error) {
	list, err := d.list()
	var names []string
	for _, f := range list {
		if strings.HasSuffix(f.Name(), ending) && !strings.HasPrefix(f.Name(), writing) {
			names = append(names, f.Name())
		}
	}
	return names, err
}

// Sweep removes what a crash left of a write. It is for the one that writes here.
func (d Dir) Sweep() error {
	list, err := d.list()
	for _, f := range list {
		if strings.HasPrefix(f.Name(), writing) {
			err = errors.Join(err, os.Remove(d.path(f.Name())))
		}
	}
	return err
}

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

func (d Dir) list() (files []fs.DirEntry, err error) {
	all, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, f := range all {
		if !f.IsDir() {
			files = append(files, f)
		}
	}
	return files, err
}

// make makes the directory with a name that lasts. Its parent is synced even where it is
// there: a crash may have come between the two.
func (d Dir) make() error {
	if err := os.Mkdir(string(d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return sync(filepath.Dir(string(d)))
}

func sync(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

package vault

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// files is what the vault does to the disk, so that a fault can be a test's input.
type files interface {
	// write replaces dir/name whole and returns nil when it is on stable storage under its
	// name. A crash before that, or an error, leaves the old or the new one, never a part.
	write(dir, name string, b []byte) error
	// remove returns when the name is gone from stable storage.
	remove(dir, name string) error
}

type disk struct{}

func (disk) write(dir, name string, b []byte) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".writing-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

func (disk) remove(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(dir)
}

// makeDir makes dir with a name that lasts. Its parent is synced even where it is there:
// a crash may have come between the two.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

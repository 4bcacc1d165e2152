package vault

import "penstock/keep"

// files is what the vault does to the disk, so that a fault can be a test's input.
type files interface {
	// write replaces dir/name whole and returns nil when it is on stable storage under its
	// name. A crash before that, or an error, leaves the old or the new one, never a part.
	write(dir, name string, b []byte) error
	// remove returns when the name is gone from stable storage.
	remove(dir, name string) error
}

type disk struct{}

func (disk) write(dir, name string, b []byte) error { return keep.Dir(dir).Write(name, b) }
func (disk) remove(dir, name string) error          { return keep.Dir(dir).Remove(name) }

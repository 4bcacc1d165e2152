package archive

import (
	"fmt"
	"sync/atomic"
)

// names are the entries of a directory as this life found them. A life that was killed
// between a rename and its SyncDir leaves a name that everybody sees and no disk holds; what
// is then built on it (a successor that names it, a removal of what it replaced) may reach
// the disk where the name itself does not. So they are synced once, before anything is.
type names struct {
	fs   FS
	dir  string
	done atomic.Bool
}

// settle makes them durable, once. An error means that nothing may be built on them yet.
func (n *names) settle() error {
	if n.done.Load() {
		return nil
	}
	if err := n.fs.SyncDir(n.dir); err != nil {
		return fmt.Errorf("sync directory %s: %w", n.dir, err)
	}
	n.done.Store(true)
	return nil
}

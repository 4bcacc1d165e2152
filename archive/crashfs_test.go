package archive

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"syscall"
)

// crashFS is a disk in memory that loses what a power cut may lose: of the writes that
// no sync covers any sectors, of the directory entries that no SyncDir covers all after
// some point, or any of them: nothing promises that they reach the disk in order. It fails operations on demand, and a failed sync behaves as Linux does:
// the pages count as clean afterwards, the reader still sees them, the disk has some.
type crashFS struct {
	mu      sync.Mutex
	rng     *rand.Rand
	live    map[string]*inode // names as the process sees them
	durable map[string]*inode // names as they are on the disk
	pending map[string][]dirOp
	dirs    map[string]bool
	locked  map[string]bool
	ops     int
	nth     map[string]int // calls of each operation
	cells   *cells         // counts what was failed; nil: nobody counts
	dead    bool

	// fail is asked before each operation that changes anything; what it returns is the
	// operation's error. crashed means that the machine is off from then on.
	fail  func(op, name string, n int) error
	block func(op, name string) // called without the lock, before an operation
	free  uint64
	total uint64
	room  int64 // bytes that all files may have; 0: any
}

// used is how many bytes the files have. Caller holds mu.
func (c *crashFS) used() (n int64) {
	for _, i := range c.live {
		n += int64(len(i.data))
	}
	return n
}

// fill leaves room for so many more bytes.
func (c *crashFS) fill(more int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.room = c.used() + more
}

type dirOp struct {
	name string
	node *inode // nil: removed
}

type inode struct {
	name  string
	data  []byte // as read
	disk  []byte // after a power cut, if nothing dirty made it
	dirty []dirtyWrite
}

type dirtyWrite struct {
	off  int64
	data []byte
	cut  bool // a truncation to off
}

const sector = 512

var (
	errCrashed  = errors.New("the machine is off")
	errInjected = &fs.PathError{Op: "injected", Path: "-", Err: syscall.EIO}
)

func newCrashFS(rng *rand.Rand) *crashFS {
	return &crashFS{rng: rng, live: map[string]*inode{}, durable: map[string]*inode{}, pending: map[string][]dirOp{},
		dirs: map[string]bool{"/": true}, locked: map[string]bool{}, nth: map[string]int{}, free: 1 << 40, total: 1 << 40}
}

// op counts an operation and says whether it fails. Caller holds mu.
func (c *crashFS) op(op, name string) error {
	if c.dead {
		return errCrashed
	}
	c.ops++
	c.nth[op]++
	if c.fail == nil {
		return nil
	}
	err := c.fail(op, name, c.ops)
	if err != nil {
		c.cells.hit(op, c.nth[op], err)
	}
	switch {
	case errors.Is(err, errCrashedAfter):
		c.dead = true
		return nil // this one is still done
	case errors.Is(err, errCrashed):
		c.dead = true
	}
	return err
}

func (c *crashFS) enter(op, name string) {
	if c.block != nil {
		c.block(op, name)
	}
	c.mu.Lock()
}

func (c *crashFS) setEntry(name string, node *inode) {
	if node == nil {
		delete(c.live, name)
	} else {
		c.live[name] = node
	}
	dir := filepath.Dir(name)
	c.pending[dir] = append(c.pending[dir], dirOp{name, node})
}

func (c *crashFS) Create(name string) (File, error) {
	c.enter("create", name)
	defer c.mu.Unlock()
	if err := c.op("create", name); err != nil {
		return nil, err
	}
	if c.live[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if c.room > 0 && c.used() >= c.room {
		return nil, errNoSpace
	}
	node := &inode{name: name}
	c.setEntry(name, node)
	return &crashFile{c, node, true, false}, nil
}

func (c *crashFS) Open(name string, write bool) (File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return nil, errCrashed
	}
	node := c.live[name]
	if node == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &crashFile{c, node, write, false}, nil
}

func (c *crashFS) Rename(from, to string) error {
	c.enter("rename", to)
	defer c.mu.Unlock()
	if err := c.op("rename", to); err != nil {
		return err
	}
	node := c.live[from]
	if node == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	delete(c.live, from)
	c.live[to] = node
	node.name = to
	// One journal entry: both names change or none does.
	dir := filepath.Dir(to)
	c.pending[dir] = append(c.pending[dir], dirOp{to, node}, dirOp{"\x00" + from, nil})
	return nil
}

func (c *crashFS) Link(from, to string) error {
	c.enter("link", to)
	defer c.mu.Unlock()
	if err := c.op("link", to); err != nil {
		return err
	}
	if c.live[from] == nil || c.live[to] != nil {
		return &fs.PathError{Op: "link", Path: to, Err: fs.ErrInvalid}
	}
	c.setEntry(to, c.live[from])
	return nil
}

func (c *crashFS) Remove(name string) error {
	c.enter("remove", name)
	defer c.mu.Unlock()
	if err := c.op("remove", name); err != nil {
		return err
	}
	if c.live[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	c.setEntry(name, nil)
	return nil
}

func (c *crashFS) MkdirAll(name string) error {
	c.enter("mkdir", name)
	defer c.mu.Unlock()
	if c.dirs[name] {
		return nil
	}
	if err := c.op("mkdir", name); err != nil {
		return err
	}
	for ; !c.dirs[name]; name = filepath.Dir(name) {
		c.dirs[name] = true
	}
	return nil
}

func (c *crashFS) List(dir string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return nil, errCrashed
	}
	if !c.dirs[dir] {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	var names []string
	for name := range c.live {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	for name := range c.dirs {
		if filepath.Dir(name) == dir && name != dir {
			names = append(names, filepath.Base(name))
		}
	}
	sort.Strings(names)
	return names, nil
}

func (c *crashFS) SyncDir(dir string) error {
	c.enter("syncdir", dir)
	defer c.mu.Unlock()
	if err := c.op("syncdir", dir); err != nil {
		return err
	}
	c.commitEntries(dir, len(c.pending[dir]))
	return nil
}

// commitEntries makes the first n pending entries of a directory durable.
func (c *crashFS) commitEntries(dir string, n int) {
	ops := c.pending[dir]
	if n < len(ops) && n > 0 && ops[n].name[0] == 0 {
		n++ // the second half of a rename
	}
	for _, op := range ops[:n] {
		c.commitEntry(op)
	}
	c.pending[dir] = ops[n:]
}

func (c *crashFS) commitEntry(op dirOp) {
	name := op.name
	if name[0] == 0 {
		name = name[1:]
	}
	if op.node == nil {
		delete(c.durable, name)
	} else {
		c.durable[name] = op.node
	}
}

// someEntries makes any of a directory's pending entries durable, each for itself; of a
// rename both names or none.
func (c *crashFS) someEntries(dir string) {
	keep := false
	for _, op := range c.pending[dir] {
		if op.name[0] != 0 {
			keep = c.rng.IntN(2) == 0
		}
		if keep {
			c.commitEntry(op)
		}
	}
	c.pending[dir] = nil
}

type crashLock struct {
	c    *crashFS
	name string
}

func (l *crashLock) Close() error {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	delete(l.c.locked, l.name)
	return nil
}

func (c *crashFS) Lock(name string) (io.Closer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locked[name] {
		return nil, &LockedError{Path: name, Holder: "test"}
	}
	c.locked[name] = true
	return &crashLock{c, name}, nil
}

func (c *crashFS) Free(string) (free, total uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.free, c.total, nil
}

func (c *crashFS) setFree(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = n
}

type crashFile struct {
	c      *crashFS
	node   *inode
	write  bool
	closed bool
}

func (f *crashFile) name() string {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return f.node.name
}

func (f *crashFile) ReadAt(b []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	switch {
	case f.c.dead:
		return 0, errCrashed
	case f.closed:
		return 0, fs.ErrClosed
	case off >= int64(len(f.node.data)):
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *crashFile) WriteAt(b []byte, off int64) (int, error) {
	f.c.enter("write", f.name())
	defer f.c.mu.Unlock()
	if f.closed || !f.write {
		return 0, fs.ErrInvalid
	}
	if err := f.c.op("write", f.node.name); err != nil {
		n := f.c.rng.IntN(len(b) + 1)
		if errors.Is(err, errShort) && len(b) > 1 {
			n = 1 + f.c.rng.IntN(len(b)-1)
		}
		f.node.put(b[:n], off)
		return n, err
	}
	if grows := off + int64(len(b)) - int64(len(f.node.data)); f.c.room > 0 && grows > 0 {
		if left := f.c.room - f.c.used(); grows > left {
			n := max(int64(len(b))-grows+max(left, 0), 0)
			f.node.put(b[:n], off)
			return int(n), errNoSpace
		}
	}
	f.node.put(b, off)
	return len(b), nil
}

func (n *inode) put(b []byte, off int64) {
	n.data = writeAt(n.data, b, off)
	n.dirty = append(n.dirty, dirtyWrite{off: off, data: slices.Clone(b)})
}

func writeAt(data, b []byte, off int64) []byte {
	if len(b) == 0 {
		return data
	}
	if end := off + int64(len(b)); end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[off:], b)
	return data
}

func (f *crashFile) Sync() error {
	f.c.enter("sync", f.name())
	defer f.c.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	if err := f.c.op("sync", f.node.name); err != nil {
		if !f.c.dead {
			f.node.someReach(f.c.rng) // the rest never will: the pages count as clean
		}
		return err
	}
	if f.c.dead && f.c.rng.IntN(2) == 0 {
		f.node.deny() // and says that all went well
		return nil
	}
	for _, w := range f.node.dirty {
		f.node.reach(w)
	}
	f.node.dirty = nil
	return nil
}

// deny forgets what is dirty behind the end that the disk knows: ext4, where its journal
// gives up in the middle of a sync of blocks that were never written.
func (n *inode) deny() {
	known := int64(len(n.disk))
	for _, w := range n.dirty {
		if w.cut || w.off < known {
			w.data = w.data[:max(0, min(int64(len(w.data)), known-w.off))]
			n.reach(w)
		}
	}
	n.dirty = nil
}

func (n *inode) reach(w dirtyWrite) {
	if w.cut {
		n.disk = cutAt(n.disk, w.off)
	} else {
		n.disk = writeAt(n.disk, w.data, w.off)
	}
}

// someReach puts some sectors of what is dirty on the disk, and forgets the rest.
func (n *inode) someReach(rng *rand.Rand) {
	mode := rng.IntN(4) // none, all, in order up to a point, any
	for _, w := range n.dirty {
		if mode == 0 {
			break
		}
		if w.cut {
			if mode == 1 || rng.IntN(2) == 0 {
				n.reach(w)
			}
			continue
		}
		for at := int64(0); at < int64(len(w.data)); {
			end := min(((w.off+at)/sector+1)*sector-w.off, int64(len(w.data)))
			if mode == 2 && rng.IntN(20) == 0 {
				mode = 0
			}
			if mode == 1 || mode == 2 || mode == 3 && rng.IntN(2) == 0 {
				n.disk = writeAt(n.disk, w.data[at:end], w.off+at)
			}
			at = end
		}
	}
	n.dirty = nil
}

func cutAt(data []byte, size int64) []byte {
	if int64(len(data)) > size {
		return data[:size:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

func (f *crashFile) Truncate(size int64) error {
	f.c.enter("truncate", f.name())
	defer f.c.mu.Unlock()
	if err := f.c.op("truncate", f.node.name); err != nil {
		return err
	}
	f.node.data = cutAt(f.node.data, size)
	f.node.dirty = append(f.node.dirty, dirtyWrite{off: size, cut: true})
	return nil
}

func (f *crashFile) Size() (int64, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.c.dead {
		return 0, errCrashed
	}
	return int64(len(f.node.data)), nil
}

func (f *crashFile) Close() error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	return nil
}

// kill gives the disk as the next process finds it when only the process died: nothing
// is lost, and what was not synced still is not.
func (c *crashFS) kill() *crashFS {
	n := c.clone()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	return n
}

// clone gives another disk with the same on it.
func (c *crashFS) clone() *crashFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := newCrashFS(c.rng)
	n.cells, n.room = c.cells, c.room
	copies := map[*inode]*inode{}
	dup := func(i *inode) *inode {
		if i == nil {
			return nil
		}
		if copies[i] == nil {
			copies[i] = &inode{name: i.name, data: slices.Clone(i.data), disk: slices.Clone(i.disk), dirty: slices.Clone(i.dirty)}
		}
		return copies[i]
	}
	for name, i := range c.live {
		n.live[name] = dup(i)
	}
	for name, i := range c.durable {
		n.durable[name] = dup(i)
	}
	for dir, ops := range c.pending {
		for _, op := range ops {
			n.pending[dir] = append(n.pending[dir], dirOp{op.name, dup(op.node)})
		}
	}
	for d := range c.dirs {
		n.dirs[d] = true
	}
	return n
}

// powerCut gives the disk as it is after a power cut.
func (c *crashFS) powerCut() *crashFS {
	n := c.kill()
	dirs := make([]string, 0, len(n.pending))
	for dir := range n.pending {
		dirs = append(dirs, dir)
	}
	sort.Strings(dirs) // the seed decides, not the map
	for _, dir := range dirs {
		if n.rng.IntN(2) == 0 {
			n.someEntries(dir)
			continue
		}
		n.commitEntries(dir, n.rng.IntN(len(n.pending[dir])+1))
	}
	n.pending = map[string][]dirOp{}
	n.live = map[string]*inode{}
	names := make([]string, 0, len(n.durable))
	for name := range n.durable {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		i := n.durable[name]
		i.someReach(n.rng)
		i.data = slices.Clone(i.disk)
		n.live[name] = i
	}
	return n
}

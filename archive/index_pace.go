package archive

import (
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A compaction computes as long as there is something to merge, and there always is while
// deliveries arrive: on two cores it would have one of them for itself, and it would merge
// the same keys again for each few new ones. So it rests as long as it works. What waits
// meanwhile is merged together, which costs less in all (5,400 deliveries/s into an archive
// of a million, whole server: 115 us each, 145 without rests); searches read a few more tables.

const (
	// paceWork is how long a compaction works before it rests as long. A rest shorter than a
	// millisecond takes one: the runtime's poller knows no less.
	paceWork = 2 * time.Millisecond
	// paceMost is the longest rest, where the disk was slow and not the CPU busy.
	paceMost = 20 * time.Millisecond
	// paceOff is how many tables lie over one another in L0 when compactions hurry, as
	// reading gets slow; under paceOn they rest again. Writes stop at 24.
	paceOff, paceOn = 12, 6

	compactionFile vfs.DiskWriteCategory = "pebble-compaction"
)

// pacedFS makes compactions rest when they write.
type pacedFS struct {
	vfs.FS
	hurry *atomic.Bool
	rest  func(time.Duration)
}

// Unwrap gives the file system below, as vfs.Root wants it.
func (f pacedFS) Unwrap() vfs.FS { return f.FS }

// Create makes a file, which rests if a compaction writes it.
func (f pacedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	if err != nil || category != compactionFile {
		return file, err
	}
	return &pacedFile{File: file, fs: f, began: time.Now()}, nil
}

type pacedFile struct {
	vfs.File
	fs    pacedFS
	began time.Time // of the work since the last rest
}

func (f *pacedFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	if worked := time.Since(f.began); worked >= paceWork && !f.fs.hurry.Load() {
		f.fs.rest(min(worked, paceMost))
		f.began = time.Now()
	}
	return n, err
}

// pace looks how much the compactions have before them, and how late the index is.
func (x *index) pace(newest time.Time) {
	if time.Since(x.paced) < time.Second {
		return
	}
	x.paced = time.Now()
	x.disk.hurry.Store(hurries(int(x.db.Metrics().Levels[0].Sublevels), x.disk.hurry.Load()))
	x.punctual(newest)
}

func hurries(depth int, already bool) bool {
	return depth >= paceOff || already && depth >= paceOn
}

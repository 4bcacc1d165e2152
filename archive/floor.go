package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// What retention removed is noted before it goes: a crash may bring the file back, and its
// absence must not look like a loss. The note stands in the cursors. On a disk that is full to
// the last byte those cannot be written, and retention is what would give it space; so there
// is a second place: an empty file in the log's directory whose name is the note,
// `floor-ARCHIVE-NUMBER` (the archive's id, 16 digits, hexadecimal; the lowest number of a
// segment that was kept, 20 digits). It is made ahead, and moved from number to number, which
// takes no space. The higher one of the two counts. As soon as the cursors have the note the
// file goes back to 0: a directory into which a backup is copied must not hold it against it.
type floorFile struct {
	fs      FS
	dir     string
	archive uint64
	name    string // "": there is none
	number  uint64 // that it notes
}

func floorPrefix(archive uint64) string { return fmt.Sprintf("floor-%016x-", archive) }

func floorName(archive, number uint64) string {
	return fmt.Sprintf("%s%020d", floorPrefix(archive), number)
}

// parseFloor reads the number off a name that is a note of that archive.
func parseFloor(name string, archive uint64) (number uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, floorPrefix(archive))
	if !ok || len(digits) != 20 {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, err == nil
}

// find takes the highest of the notes among the names of a directory. After a crash there may
// be several.
func (n *floorFile) find(found []string) {
	for _, name := range found {
		if number, ok := parseFloor(name, n.archive); ok && (n.name == "" || number > n.number) {
			n.name, n.number = name, number
		}
	}
}

// reserve makes the file, while there is space. Where it cannot be made it is tried again with
// the next segment, and when it is needed.
func (n *floorFile) reserve() error {
	if n.name != "" {
		return nil
	}
	name := floorName(n.archive, 0)
	f, err := n.fs.Create(n.dir + "/" + name)
	if err != nil {
		return err
	}
	n.name, n.number = name, 0
	return f.Close()
}

// move notes number in the file's name, durably. Where there is no such file, and none can be
// made, a spare becomes it.
func (n *floorFile) move(number uint64, spares *sparePool) error {
	if err := n.reserve(); err != nil {
		spare, ok := spares.takeAny()
		if !ok {
			return err
		}
		if err := n.rename(spare, number); err != nil {
			return err
		}
		n.empty()
		return nil
	}
	return n.rename(n.name, number)
}

func (n *floorFile) rename(from string, number uint64) error {
	name := floorName(n.archive, number)
	if name != from {
		if err := n.fs.Rename(n.dir+"/"+from, n.dir+"/"+name); err != nil {
			return err
		}
	}
	n.name, n.number = name, number
	return n.fs.SyncDir(n.dir)
}

// empty gives back what a spare had. Where it cannot, the file only takes space.
func (n *floorFile) empty() {
	if f, err := n.fs.Open(n.dir+"/"+n.name, true); err == nil {
		_ = f.Truncate(0)
		_ = f.Close()
	}
}

// reset takes the note back, now that the cursors have it. A crash may forget that.
func (n *floorFile) reset() {
	if name := floorName(n.archive, 0); n.number > 0 && n.fs.Rename(n.dir+"/"+n.name, n.dir+"/"+name) == nil {
		n.name, n.number = name, 0
	}
}

// noteFloor notes that the segments of j below number are removed. The caller holds retaining.
func (a *Archive) noteFloor(j *journal, number uint64) error {
	err := a.commitFloor(j, number)
	if !diskFull(err) {
		return err
	}
	a.starved = true
	if err2 := j.noted.move(number, &j.spares); err2 != nil {
		return fmt.Errorf("%w; and in the name of a file: %w", err, err2)
	}
	a.zap.Warn("the disk is full to the last byte: retention notes what it removes in the name of a file", zap.String("dir", j.dir))
	return nil
}

// commitFloor writes the note into the cursors.
func (a *Archive) commitFloor(j *journal, number uint64) error {
	note := Change{Key: keyFloor + strconv.Itoa(int(j.o.Kind)), Value: binary.LittleEndian.AppendUint64(nil, number)}
	if err := a.state.Commit(note); err != nil {
		return err
	}
	a.starved = false
	j.noted.reset()
	return nil
}

// tendFloor brings the note where it belongs, and makes the file for the next time. The caller
// holds retaining.
func (a *Archive) tendFloor(j *journal) {
	var err error
	if j.noted.number > 0 {
		err = a.commitFloor(j, max(j.noted.number, a.state.uint(keyFloor+strconv.Itoa(int(j.o.Kind)))))
	}
	if err = errors.Join(err, j.noted.reserve()); err != nil {
		a.zap.Debug("the note of retention waits for space", zap.String("dir", j.dir), zap.Error(err))
	}
}

// dropSpares gives the disk the space of the files that wait to be segments. It says whether
// there were any.
func (a *Archive) dropSpares() (any bool) {
	for _, j := range []*journal{a.log, a.quarantine.log} {
		for {
			name, ok := j.spares.take()
			if !ok {
				break
			}
			any = j.o.FS.Remove(j.path(name)) == nil || any
		}
	}
	return any
}

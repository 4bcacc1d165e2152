package archive

import (
	"encoding/binary"
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
// takes no space. The higher one of the two counts.
func floorPrefix(archive uint64) string { return fmt.Sprintf("floor-%016x-", archive) }

func floorName(archive, number uint64) string {
	return fmt.Sprintf("%s%020d", floorPrefix(archive), number)
}

// floorOf gives the highest floor that the files of a directory note, and its file; 0 and ""
// where there is none of that archive.
func floorOf(found []string, archive uint64) (number uint64, name string) {
	for _, f := range found {
		digits, ok := strings.CutPrefix(f, floorPrefix(archive))
		if !ok || len(digits) != 20 {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil && (n >= number || name == "") {
			number, name = n, f
		}
	}
	return number, name
}

// reserveFloor makes the file, while there is space. Where it cannot be made it is tried
// again with the next segment, and when it is needed.
func (j *journal) reserveFloor() error {
	if j.floorFile != "" {
		return nil
	}
	name := floorName(j.o.Archive, 0)
	f, err := j.o.FS.Create(j.path(name))
	if err != nil {
		return err
	}
	j.floorFile = name
	return f.Close()
}

// moveFloor notes number in the file's name, durably. The caller holds retaining.
func (j *journal) moveFloor(number uint64) error {
	if err := j.reserveFloor(); err != nil {
		return err
	}
	name := floorName(j.o.Archive, number)
	if name != j.floorFile {
		if err := j.o.FS.Rename(j.path(j.floorFile), j.path(name)); err != nil {
			return err
		}
		j.floorFile = name
	}
	return j.o.FS.SyncDir(j.dir)
}

// noteFloor notes that the segments of j below number are removed.
func (a *Archive) noteFloor(j *journal, number uint64) error {
	note := Change{Key: keyFloor + strconv.Itoa(int(j.o.Kind)), Value: binary.LittleEndian.AppendUint64(nil, number)}
	err := a.state.Commit(note)
	if !diskFull(err) {
		return err
	}
	if err2 := j.moveFloor(number); err2 != nil {
		return fmt.Errorf("%w; and in the name of a file: %w", err, err2)
	}
	a.zap.Warn("the disk is full to the last byte: retention notes what it removes in the name of a file", zap.String("dir", j.dir))
	return nil
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
			if err := j.o.FS.Remove(j.path(name)); err == nil {
				any = true
			}
		}
	}
	return any
}

package archive

import (
	"errors"
	"fmt"
	"path/filepath"
)

// ErrNewer says that a file of the archive was written by a newer penstock. Nothing is changed.
var ErrNewer = errors.New("it was written by a newer penstock")

// newer is the error of a file of that format.
func newer(format, reads uint64) error {
	return fmt.Errorf("%w, format %d, and this one reads formats up to %d: use that build; nothing was changed", ErrNewer, format, reads)
}

// refuseNewer gives an ErrNewer where a file of the archive in dir has a format that this
// build does not know: before anything is changed, because what recovery, retention or a
// rewrite does to the other files would be done to an archive that is not understood. It
// reads beginnings; what is damaged, or cannot be read, is for whoever reads it whole. The
// index is not looked at: it holds nothing of its own and is built anew.
func refuseNewer(fsys FS, dir string) error {
	if err := newerSegment(fsys, filepath.Join(dir, stateName)); err != nil {
		return err
	}
	for _, name := range []string{keyringName, keyringCopy} {
		path := filepath.Join(dir, name)
		text, err := readWhole(fsys, path)
		if err != nil {
			continue
		}
		if _, err := parseKeyring(text); errors.Is(err, ErrNewer) {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	for _, log := range []string{segmentsDir, quarantineDir} {
		names, _ := fsys.List(filepath.Join(dir, log))
		for _, name := range names {
			if _, ok := parseSegmentName(name); !ok {
				continue
			}
			if err := newerSegment(fsys, filepath.Join(dir, log, name)); err != nil {
				return err
			}
		}
	}
	names, _ := fsys.List(filepath.Join(dir, pinsDir))
	for _, name := range names {
		if err := newerPin(fsys, filepath.Join(dir, pinsDir, name)); name != pinHalf && err != nil {
			return err
		}
	}
	return nil
}

func newerSegment(fsys FS, path string) error {
	f, err := fsys.Open(path, false)
	if err != nil {
		return nil
	}
	defer f.Close()
	if _, err := readHeader(f); errors.Is(err, ErrNewer) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func newerPin(fsys FS, path string) error {
	f, err := fsys.Open(path, false)
	if err != nil {
		return nil
	}
	defer f.Close()
	var head [pinHead]byte
	n, _ := f.ReadAt(head[:], 0)
	if _, err := pinFormat(head[:n]); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// disk is a file system of its own for the archive: an ext4 in a file, so that the power
// can be cut and the disk can be full. Without the right to mount it is a plain directory
// and those faults are left out.
type disk struct {
	dir, image string
	real       bool
	why        string // why it is not
}

func newDisk(t *testing.T, size int64) *disk {
	t.Helper()
	d := &disk{dir: filepath.Join(t.TempDir(), "disk"), image: filepath.Join(t.TempDir(), "image")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if d.why = d.format(size); d.why == "" {
		d.real = true
		t.Cleanup(func() {
			if err := d.unmount(); err != nil {
				t.Errorf("the archive's disk stays mounted: %v", err)
			}
		})
	}
	return d
}

func (d *disk) format(size int64) (why string) {
	if os.Getuid() != 0 {
		return "not root"
	}
	f, err := os.Create(d.image)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err.Error()
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", d.image).CombinedOutput(); err != nil {
		return fmt.Sprintf("mkfs.ext4: %v %s", err, out)
	}
	if err := d.mount(); err != nil {
		return err.Error()
	}
	return ""
}

func (d *disk) mount() error {
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w %s", err, out)
	}
	return nil
}

func (d *disk) unmount() error {
	var err error
	for range 50 { // whoever was killed may hold it for a moment
		if err = syscall.Unmount(d.dir, 0); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// cutPower makes the file system forget everything that was not synced, at once and
// without flushing its journal (EXT4_IOC_SHUTDOWN, NOLOGFLUSH). Every call on it fails
// from then on; mount again to see what a restarted machine would see.
func (d *disk) cutPower() error {
	const shutdown = 0x8004587d // _IOR('X', 125, __u32)
	flag := uint32(2)           // NOLOGFLUSH
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&flag))); e != 0 {
		return fmt.Errorf("shut the file system down: %w", e)
	}
	return nil
}

// fill takes all the space but what leave says; the file that it makes gives it back.
func (d *disk) fill(leave int64) (free func() error, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		return nil, err
	}
	name := filepath.Join(d.dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Ever smaller pieces: what looks free is partly the file system's own.
	at, size := int64(0), int64(st.Bavail)*st.Bsize-leave
	for piece := size; piece >= 4096 && at < size; {
		switch err := syscall.Fallocate(int(f.Fd()), 0, at, min(piece, size-at)); {
		case err == nil:
			at += min(piece, size-at)
		case errors.Is(err, syscall.ENOSPC):
			piece /= 2
		default:
			_ = os.Remove(name)
			return nil, fmt.Errorf("fill the disk: %w", err)
		}
	}
	return func() error { return os.Remove(name) }, nil
}

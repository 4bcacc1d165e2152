package archive

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"
)

var errWouldBlock error = syscall.EWOULDBLOCK

func flock(f *os.File) error {
	return retryEINTR(func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
}

// fdatasync also makes a changed size durable; it leaves out times, which would cost
// a journal write per commit.
func fdatasync(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) {
		serr = retryEINTR(func() error { return syscall.Fdatasync(int(fd)) })
	}); err != nil {
		return err
	}
	return os.NewSyscallError("fdatasync", serr)
}

func retryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func (osFS) Free(dir string) (free, total uint64, err error) {
	var st syscall.Statfs_t
	if err := retryEINTR(func() error { return syscall.Statfs(dir, &st) }); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	bs := uint64(st.Bsize)
	return st.Bavail * bs, st.Blocks * bs, nil
}

// directAlign is more than any block device in use asks of memory, offset and length.
const directAlign = 4096

// CreateZeroed writes with O_DIRECT. A file system that knows no such thing (tmpfs), or a
// size that is no multiple of its blocks, is an error, and the caller does it plainly.
func (osFS) CreateZeroed(name string, size int64) (err error) {
	if size%directAlign != 0 {
		return errors.ErrUnsupported
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_DIRECT, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(name) // the caller begins anew
		}
	}()
	zeros := alignedZeros(int(min(zeroAhead, size)))
	for off := int64(0); off < size; off += int64(len(zeros)) {
		began := time.Now()
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
		time.Sleep(time.Since(began))
	}
	return fdatasync(f)
}

// alignedZeros gives zeros at an address that O_DIRECT takes.
func alignedZeros(n int) []byte {
	b := make([]byte, n+directAlign)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (directAlign - 1)
	return b[skip : skip+n]
}

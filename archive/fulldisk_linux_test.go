package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// mountEnv names the directory on which the child of inOwnMounts mounts its disk.
const mountEnv = "PENSTOCK_ARCHIVE_MOUNT"

// inOwnMounts runs the test again in a process with mounts of its own, which go with it
// whatever happens: as root, or where the machine lets anybody have a namespace of users.
// In that process it mounts a small disk in memory and gives its directory; in the first
// one it gives "" and the test is done. Without the right to mount the test is skipped, or
// fails where PENSTOCK_REQUIRE_REAL says that nothing may be skipped.
func inOwnMounts(t *testing.T, size int64) string {
	t.Helper()
	if dir := os.Getenv(mountEnv); dir != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
			t.Fatalf("mount: %v", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Errorf("unmount: %v", err)
			}
		})
		return dir
	}
	dir := t.TempDir()
	var out []byte
	var err error
	runtime.LockOSThread() // the child goes with the thread that started it
	defer runtime.UnlockOSThread()
	for _, users := range []uintptr{0, syscall.CLONE_NEWUSER} {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=9m")
		cmd.Env = append(os.Environ(), mountEnv+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: users, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if users != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		out, err = cmd.CombinedOutput()
		if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOSPC) {
			break
		}
	}
	var exit *exec.ExitError
	switch {
	case err == nil && bytes.Contains(out, []byte("--- PASS: "+t.Name()+" ")):
		t.Logf("in its own mounts:\n%s", out)
	case err == nil && bytes.Contains(out, []byte("--- SKIP: "+t.Name()+" ")):
		t.Skipf("in its own mounts:\n%s", out)
	case err == nil || errors.As(err, &exit):
		t.Fatalf("in its own mounts: %v\n%s", err, out)
	case os.Getenv("PENSTOCK_REQUIRE_REAL") != "":
		t.Fatalf("a small disk cannot be mounted here (%v), and PENSTOCK_REQUIRE_REAL forbids to skip: run as root", err)
	default:
		t.Skipf("a small disk cannot be mounted here (%v): run as root", err)
	}
	return ""
}

// fullDisk is an archive on a disk that it fills.
type fullDisk struct {
	t     *testing.T
	dir   string
	o     Options
	a     *Archive
	mu    sync.Mutex
	acked map[string]*Delivery
	waits map[uint64]bool // has no outcome: retention may not take it
	next  int
	state int // what the last commit said that was acknowledged
	full  bool
}

func (f *fullDisk) open() {
	f.t.Helper()
	f.a = mustOpen(f.t, f.dir, f.o)
}

// fullBody is nothing that can be compressed: only space gives space back.
func fullBody(n int) []byte {
	b := make([]byte, 8000)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b) // never fails
	return b[:6000+n%2000]
}

// load appends from several goroutines until as many deliveries in a row were refused; of
// each tenth nothing becomes, of the others an outcome if the disk takes it.
func (f *fullDisk) load(refused int64) {
	f.t.Helper()
	var row atomic.Int64
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for row.Load() < refused {
				f.mu.Lock()
				f.next++
				n := f.next
				f.mu.Unlock()
				d := testDelivery(n)
				d.ReceivedAt = time.Now().UTC()
				d.Body = fullBody(n)
				err := f.a.Append(d)
				if err != nil {
					if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrFull) {
						f.t.Errorf("append on a full disk: %v", err)
						row.Store(refused)
						return
					}
					row.Add(1)
					continue
				}
				row.Store(0)
				f.mu.Lock()
				f.acked[d.ID] = d
				f.waits[d.Seq] = true
				f.mu.Unlock()
				f.beside(d, n)
			}
		})
	}
	wg.Wait()
}

// beside does what else is written: outcomes, refusals, cursors.
func (f *fullDisk) beside(d *Delivery, n int) {
	if n%10 != 0 && f.a.AppendOutcomes(outcomeOf(d, Published)) == nil {
		f.mu.Lock()
		delete(f.waits, d.Seq)
		f.mu.Unlock()
	}
	if n%7 == 0 {
		r := testDelivery(n)
		r.Reason = "signature_mismatch"
		_, _ = f.a.Reject(r) // taken or counted
	}
	if n%5 == 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.a.State().Commit(Change{"n", fmt.Append(nil, n)}) == nil {
			f.state = n
		}
	}
}

// there says that all is there that must be: everything, or with gone what waits.
func (f *fullDisk) there(when string, gone bool) {
	f.t.Helper()
	lost := 0
	for id, d := range f.acked {
		got, err := f.a.Get(id)
		if errors.Is(err, ErrNotFound) && gone && !f.waits[d.Seq] {
			lost++
			continue
		}
		if errors.Is(err, ErrUnavailable) && f.full {
			continue // recovery has it, and nowhere to carry it over to yet
		}
		if err != nil {
			f.t.Fatalf("%s: acknowledged seq=%d: %v", when, d.Seq, err)
		}
		sameDelivery(f.t, got, d)
	}
	seen := map[uint64]bool{}
	for _, rec := range readAll(f.t, f.a.NewReader(0)) {
		if rec.Corrupt != nil {
			f.t.Fatalf("%s: %v", when, rec.Corrupt)
		}
		if seen[rec.Seq] {
			f.t.Fatalf("%s: seq=%d is there twice", when, rec.Seq)
		}
		seen[rec.Seq] = true
	}
	if v, _ := f.a.State().Get("n"); f.state > 0 && string(v) != fmt.Sprint(f.state) {
		f.t.Fatalf("%s: the state says %q, %d was acknowledged", when, v, f.state)
	}
	if d := f.a.Damage(); len(d) > 0 {
		f.t.Fatalf("%s: %q", when, d)
	}
	res, err := CheckWith(f.dir, f.a.keys, io.Discard)
	if err != nil || !res.Sound() {
		f.t.Fatalf("%s: %v %q", when, err, res.Damage)
	}
	f.t.Logf("%s: %d of %d acknowledged deliveries are there, %d wait", when, len(f.acked)-lost, len(f.acked), len(f.waits))
}

// found says that the index gets to know every delivery that is there.
func (f *fullDisk) found(when string) {
	f.t.Helper()
	eventually(f.t, when+": the index", func() bool { return f.a.index.broken.Load() == nil && f.a.Indexed() >= f.a.Synced() })
	indexed := map[string]bool{}
	for flt := (Filter{Limit: MaxLimit, Verdict: "accepted"}); ; {
		p, err := f.a.Query(context.Background(), flt)
		if err != nil {
			f.t.Fatalf("%s: %v", when, err)
		}
		for i := range p.Rows {
			indexed[p.Rows[i].ID] = true
		}
		if flt.Cursor = p.Next; flt.Cursor == "" {
			break
		}
	}
	for id, d := range f.acked {
		if _, err := f.a.Get(id); err == nil && !indexed[id] {
			f.t.Fatalf("%s: seq=%d is not in the index", when, d.Seq)
		}
	}
}

// fillUp takes the last page of the disk.
func (f *fullDisk) fillUp(name string) {
	f.t.Helper()
	file, err := os.Create(name)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, os.Getpagesize()))
	}
	if !diskFull(err) {
		f.t.Fatal(err)
	}
}

// more appends deliveries that wait, and lets retention look as often as it takes.
func (f *fullDisk) more(what string, from int) {
	f.t.Helper()
	for n := range 50 {
		d := testDelivery(from + n)
		eventually(f.t, what, func() bool {
			if f.a.Append(d) == nil {
				return true
			}
			f.a.retain()
			return false
		})
		f.mu.Lock()
		f.acked[d.ID], f.waits[d.Seq] = d, true
		f.mu.Unlock()
	}
}

// TestFullDisk fills a real file system under load, segments, index, keyring, packed
// segments and all. Nothing that was acknowledged is lost: not while the disk is full, not
// in a life that begins on it, not when retention works on it. Deliveries are taken again
// when retention freed what is due, on a disk that was full to the last page, and when there
// is space, with the index complete.
func TestFullDisk(t *testing.T) {
	dir := inOwnMounts(t, 24<<20)
	if dir == "" {
		return
	}
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed=%t", sealed), func(t *testing.T) { testFullDisk(t, filepath.Join(dir, fmt.Sprint(sealed)), sealed) })
	}
}

func testFullDisk(t *testing.T, dir string, sealed bool) {
	f := &fullDisk{t: t, dir: filepath.Join(dir, "archive"), acked: map[string]*Delivery{}, waits: map[uint64]bool{}, full: true}
	t.Cleanup(func() { // after the archive is closed
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	// Without a reserve: what it keeps free would hide what happens without it.
	f.o = Options{SegmentBytes: 512 << 10, ReservePercent: -1, MaxWait: time.Hour, Retention: Retention{Age: time.Hour}}
	if sealed {
		f.o.Encryption = &Encryption{Key: testKey(1)}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 6<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f.open()
	f.load(60)
	if t.Failed() {
		return
	}
	f.there("full", false)
	if err := f.a.Writable(); err == nil {
		eventually(t, "the disk is full to the last", func() bool { f.load(60); return f.a.Writable() != nil })
	}
	_ = f.a.Close() // what it cannot write down is nothing that was promised
	f.open()
	f.there("a life that begins on the full disk", false)
	f.load(60)
	f.there("the same, after more load", false)

	// Retention on a full disk: what waits has to be copied before a segment goes.
	_ = f.a.Close()
	f.o.Retention = Retention{Size: 6 << 20}
	f.o.Keep = func() uint64 { return 1 }
	f.o.Waiting = func(from, to uint64) (list []uint64, ok bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if from&QuarantineBit != 0 {
			return nil, true
		}
		for seq := from; seq <= to; seq++ {
			if f.waits[seq] {
				list = append(list, seq)
			}
		}
		return list, true
	}
	f.open()
	f.fillUp(filler + ".rest")
	f.more("deliveries are taken again, freed by retention", 1_000_000)
	if n := f.a.log.bytes.Load(); n > 10<<20 {
		t.Fatalf("retention left %d bytes of about 16 MiB, and has to leave 6", n)
	}
	f.there("retention on the full disk", true)

	// The cure.
	for _, name := range []string{filler, filler + ".rest"} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	f.more("deliveries are taken again with space", 2_000_000)
	f.full = false
	f.there("with space again", true)
	f.found("with space again") // it opened on the full disk, without its index
	_ = f.a.Close()
	f.open() // an index that failed is rebuilt
	f.there("the next life", true)
	f.found("the next life")
	if err := f.a.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(filepath.Join(f.dir, segmentsDir, "*"+orphanSuffix)); len(names) > 3 {
		t.Errorf("a full disk leaves empty segments behind: %s", strings.Join(names, " "))
	}
}

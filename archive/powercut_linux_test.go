package archive

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// TestPowerCut: a real file system forgets, in the middle of the load, all that was not
// synced, its journal included. The next life takes nothing of it for damage, and has all
// that was acknowledged and waits, byte for byte. PENSTOCK_POWER_CUTS, of each kind, does it more often.
func TestPowerCut(t *testing.T) {
	cuts := 2
	if v := os.Getenv("PENSTOCK_POWER_CUTS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("PENSTOCK_POWER_CUTS=%q: %v", v, err)
		}
		cuts = n
	}
	if os.Getuid() != 0 {
		t.Skip("only root can mount an ext4")
	}
	memory := inOwnMounts(t, 512<<20)
	if memory == "" {
		return
	}
	d := newExt4(t, memory, 256<<20)
	total := 0
	for cut := 0; cut < cuts; {
		for _, retains := range []bool{false, true} {
			p := powerCuts{t: t, disk: d, dir: filepath.Join(d.dir, "archive"), retains: retains, acked: map[uint64]childAck{}}
			for range min(cuts-cut, 20) {
				p.cut()
				p.verify()
			}
			total += len(p.acked)
			if err := os.RemoveAll(p.dir); err != nil {
				t.Fatal(err)
			}
		}
		cut += 20
	}
	t.Logf("%d acknowledged over %d power cuts", total, 2*cuts)
}

// powerCuts is an archive on a disk whose power is cut again and again. With retains it is
// encrypted, and removes and thins segments; else all that was acknowledged stays.
type powerCuts struct {
	t       *testing.T
	disk    *ext4
	dir     string
	retains bool
	acked   map[uint64]childAck
	cuts    int
}

// verify looks at what the machine finds when it is on again.
func (p *powerCuts) verify() {
	t := p.t
	t.Helper()
	if err := p.disk.remount(); err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("cut %d, retains=%t", p.cuts, p.retains)
	if res, err := Check(p.dir, io.Discard); err != nil || !res.Sound() {
		t.Fatalf("%s: %v %q", at, err, res.Damage)
	}
	o := Options{NoIndex: true, NoPack: true}
	if p.retains {
		o.Encryption = &Encryption{Key: testKey(1)}
	}
	a := mustOpen(t, p.dir, o)
	if d := a.Damage(); len(d) > 0 {
		t.Fatalf("%s: it is taken for damage: %q", at, d)
	}
	found := map[uint64]*Delivery{}
	for _, rec := range readAll(t, a.NewReader(0)) {
		if rec.Corrupt != nil || found[rec.Seq] != nil {
			t.Fatalf("%s: seq=%d: damaged or there twice: %v", at, rec.Seq, rec.Corrupt)
		}
		found[rec.Seq] = rec.Delivery
	}
	for seq, want := range p.acked {
		got := found[seq]
		if got == nil && p.retains && want.n%10 != 0 {
			continue // it does not wait, and retention removed it
		}
		if got == nil {
			t.Fatalf("%s: acknowledged seq=%d is lost", at, seq)
		}
		check := testDelivery(want.n)
		check.Seq, check.ID = seq, want.id
		sameDelivery(t, got, check)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

type childAck struct {
	id string
	n  int
}

// cut lets a child append until the power is cut, and notes what it acknowledged.
func (p *powerCuts) cut() {
	t := p.t
	t.Helper()
	p.cuts++
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+p.dir)
	if p.retains {
		cmd.Env = append(cmd.Env, childRetains+"=1")
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dead := false
	lines := bufio.NewScanner(out)
	for left := 200 + rand.IntN(2000); lines.Scan(); left-- {
		var a childAck
		var seq uint64
		if _, err := fmt.Sscan(lines.Text(), &a.id, &seq, &a.n); err != nil {
			if dead {
				break // it says what it found
			}
			t.Fatalf("child says %q", lines.Text())
		}
		if p.acked[seq].id != "" {
			t.Fatalf("seq=%d was given twice", seq)
		}
		p.acked[seq] = a
		if left == 0 {
			// Not frozen before: an fdatasync that the shutdown overtakes must not count.
			if err := p.disk.cutPower(); err != nil {
				t.Fatal(err)
			}
			dead = true
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed
	if !dead {
		t.Fatal("the child ended before the power was cut")
	}
}

// ext4 is a file system in a file.
type ext4 struct{ image, dir string }

func newExt4(t *testing.T, in string, size int64) *ext4 {
	t.Helper()
	d := &ext4{image: filepath.Join(in, "image"), dir: filepath.Join(in, "disk")}
	f, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", d.image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v %s", err, out)
	}
	if err := d.mount(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := d.unmount(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *ext4) mount() error {
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w %s", err, out)
	}
	return nil
}

func (d *ext4) unmount() (err error) {
	for range 100 { // whoever was killed may hold it for a moment
		if err = syscall.Unmount(d.dir, 0); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("unmount: %w", err)
}

func (d *ext4) remount() error {
	if err := d.unmount(); err != nil {
		return err
	}
	return d.mount()
}

// cutPower makes the file system forget all that was not synced, without flushing its
// journal. Every call on it fails from then on.
func (d *ext4) cutPower() error {
	const shutdown = 0x8004587d // _IOR('X', 125, __u32): EXT4_IOC_SHUTDOWN
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

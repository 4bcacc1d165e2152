package archive

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// childEnv names the directory for the process that TestKill starts: this test binary.
const childEnv = "PENSTOCK_ARCHIVE_CHILD"

// childMain appends from many goroutines and prints the id of each acknowledged one.
func childMain(dir string) {
	o, waits := Options{NoIndex: true, SegmentBytes: 256 << 10, MaxWait: time.Hour}, new(childWaits)
	if os.Getenv(childRetains) != "" {
		o.SegmentBytes, o.Retention = 32<<10, Retention{Size: 256 << 10}
		o.Encryption = &Encryption{Key: testKey(1)}
		o.Keep, o.Waiting = func() uint64 { return waits.keep.Load() }, waits.list
	}
	a, err := Open(dir, o)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	start := int(a.Synced())
	waits.learn(a)
	for w := range 32 {
		go func() {
			for n := 0; ; n++ {
				d := testDelivery(start*1000 + w*1_000_000 + n)
				if err := a.Append(d); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				waits.settle(d.Seq, start*1000+w*1_000_000+n)
				// One write: a line is there whole or not at all.
				fmt.Printf("%s %d %d\n", d.ID, d.Seq, start*1000+w*1_000_000+n)
			}
		}()
	}
	select {}
}

// childRetains makes the child encrypt, and remove and thin what is due.
const childRetains = "PENSTOCK_ARCHIVE_CHILD_RETAINS"

// childWaits is the child's pump: every tenth delivery waits, and what it has not heard of.
type childWaits struct {
	mu   sync.Mutex
	done map[uint64]bool
	keep atomic.Uint64 // 0 until the log of earlier lives is known
}

func (c *childWaits) settle(seq uint64, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = map[uint64]bool{}
	}
	c.done[seq] = n%10 != 0
}

func (c *childWaits) learn(a *Archive) {
	r := a.NewReader(0)
	defer r.Close()
	for {
		rec, ok, err := r.TryNext()
		if err != nil || !ok {
			break
		}
		var n int
		if _, err := fmt.Sscanf(string(rec.Delivery.Body), `{"n":%d}`, &n); err == nil {
			c.settle(rec.Seq, n)
		}
	}
	c.keep.Store(1)
}

func (c *childWaits) list(from, to uint64) (seqs []uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from&QuarantineBit != 0 {
		return nil, true
	}
	for seq := from; seq <= to; seq++ {
		if !c.done[seq] {
			seqs = append(seqs, seq)
		}
	}
	return seqs, true
}

// TestKillWhileItRetains: kill -9 of a gateway that rolls, packs, encrypts, thins and
// removes segments as fast as it can; what waits is there, byte for byte, in each life.
func TestKillWhileItRetains(t *testing.T) {
	dir := t.TempDir()
	o := Options{NoIndex: true, NoPack: true, Encryption: &Encryption{Key: testKey(1)}}
	type ack struct {
		id string
		n  int
	}
	acked := map[uint64]ack{}
	removed := 0
	for life := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childEnv+"="+dir, childRetains+"=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for left := 1000 + rand.IntN(3000); lines.Scan(); left-- {
			var a ack
			var seq uint64
			if _, err := fmt.Sscan(lines.Text(), &a.id, &seq, &a.n); err != nil {
				t.Fatalf("child says %q", lines.Text())
			}
			acked[seq] = a
			if left == 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
			t.Fatalf("life %d: %v %q", life, err, res.Damage)
		}
		a := mustOpen(t, dir, o)
		if d := a.Damage(); len(d) > 0 {
			t.Fatalf("life %d: a kill is taken for damage: %q", life, d)
		}
		found := map[uint64]*Delivery{}
		for _, rec := range readAll(t, a.NewReader(0)) {
			if rec.Corrupt != nil {
				t.Fatal(rec.Corrupt)
			}
			if found[rec.Seq] != nil {
				t.Fatalf("life %d: seq=%d is there twice", life, rec.Seq)
			}
			found[rec.Seq] = rec.Delivery
		}
		for seq, want := range acked {
			d := found[seq]
			if d == nil && want.n%10 == 0 {
				t.Fatalf("life %d: seq=%d waits and is lost", life, seq)
			}
			if d == nil {
				removed++
				continue
			}
			check := testDelivery(want.n)
			check.Seq, check.ID = seq, want.id
			sameDelivery(t, d, check)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if removed == 0 {
		t.Fatal("retention removed nothing: this tests nothing")
	}
	t.Logf("%d acknowledged over 8 kills", len(acked))
}

// TestKill: kill -9 under load, several times on one directory; all that was
// acknowledged is there, byte for byte.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	type ack struct {
		id string
		n  int
	}
	acked := make(map[uint64]ack)
	for life := range 6 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for left := 200 + rand.IntN(2000); lines.Scan(); left-- {
			f := strings.Fields(lines.Text())
			if len(f) != 3 {
				t.Fatalf("child says %q", lines.Text())
			}
			seq, err1 := strconv.ParseUint(f[1], 10, 64)
			n, err2 := strconv.Atoi(f[2])
			if err1 != nil || err2 != nil {
				t.Fatalf("child says %q", lines.Text())
			}
			if acked[seq].id != "" {
				t.Fatalf("seq=%d was given twice", seq)
			}
			acked[seq] = ack{f[0], n}
			if left == 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		a := mustOpen(t, dir, Options{NoIndex: true})
		if d := a.Damage(); len(d) > 0 {
			t.Fatalf("life %d: a kill is taken for damage: %q", life, d)
		}
		if life%2 == 1 { // the other lives leave the packing to the child, which is killed in it
			eventually(t, "packed", func() bool { n, all := packed(a); return n > 0 && all })
		}
		found := make(map[uint64]*Delivery)
		for _, rec := range readAll(t, a.NewReader(0)) {
			if rec.Corrupt != nil {
				t.Fatal(rec.Corrupt)
			}
			found[rec.Seq] = rec.Delivery
		}
		for seq, want := range acked {
			d := found[seq]
			if d == nil {
				t.Fatalf("life %d: acknowledged seq=%d is lost", life, seq)
			}
			check := testDelivery(want.n)
			check.Seq, check.ID = seq, want.id
			sameDelivery(t, d, check)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged over 6 kills", len(acked))
}

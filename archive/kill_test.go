package archive

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// childEnv names the directory for the process that TestKill starts: this test binary.
const childEnv = "PENSTOCK_ARCHIVE_CHILD"

// childMain appends from many goroutines and prints the id of each acknowledged one.
func childMain(dir string) {
	a, err := Open(dir, Options{NoIndex: true, SegmentBytes: 256 << 10, MaxWait: time.Hour})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	start := int(a.Synced())
	for w := range 32 {
		go func() {
			for n := 0; ; n++ {
				d := testDelivery(start*1000 + w*1_000_000 + n)
				if err := a.Append(d); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				// One write: a line is there whole or not at all.
				fmt.Printf("%s %d %d\n", d.ID, d.Seq, start*1000+w*1_000_000+n)
			}
		}()
	}
	select {}
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

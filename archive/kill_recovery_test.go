package archive

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// childIndexes makes the child open with its index, and say when it is complete.
const childIndexes = "PENSTOCK_ARCHIVE_CHILD_INDEXES"

// childRebuild opens the archive with its index, and appends while that follows.
func childRebuild(dir string) {
	fmt.Println("begun")
	a, err := Open(dir, Options{SegmentBytes: 64 << 10, MaxWait: time.Hour})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("open")
	for n := int(a.Synced()) * 10; ; n++ {
		d := testDelivery(n)
		if err := a.Append(d); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Printf("%s %d %d\n", d.ID, d.Seq, n)
		time.Sleep(time.Millisecond)
	}
}

// killed starts a child and kills it a while after it said a word, if not before; it gives
// what the child acknowledged.
func killed(t *testing.T, env []string, after string, wait time.Duration, acked map[uint64]*Delivery) (reached bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { _ = cmd.Process.Kill() }
	defer kill()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		word := lines.Text()
		if word == after {
			reached = true
			time.AfterFunc(wait, kill)
		}
		if word == "begun" || word == "open" {
			continue
		}
		var id string
		var seq uint64
		var n int
		if _, err := fmt.Sscan(word, &id, &seq, &n); err != nil {
			t.Fatalf("child says %q", word)
		}
		d := testDelivery(n)
		d.ID, d.Seq = id, seq
		if acked[seq] != nil {
			t.Fatalf("seq=%d was given twice", seq)
		}
		acked[seq] = d
	}
	_ = cmd.Wait() // killed
	return reached
}

// onceAndIntact reads the log: all that was acknowledged is there once, nothing is damage.
func onceAndIntact(t *testing.T, a *Archive, acked map[uint64]*Delivery, when string) {
	t.Helper()
	if d := a.Damage(); len(d) > 0 {
		t.Fatalf("%s: a kill is taken for damage: %q", when, d)
	}
	seen := map[uint64]bool{}
	for _, rec := range readAll(t, a.NewReader(0)) {
		if rec.Corrupt != nil || seen[rec.Seq] {
			t.Fatalf("%s: seq=%d is there twice, or damaged: %v", when, rec.Seq, rec.Corrupt)
		}
		seen[rec.Seq] = true
		if want := acked[rec.Seq]; want != nil {
			sameDelivery(t, rec.Delivery, want)
		}
	}
	for seq := range acked {
		if !seen[seq] {
			t.Fatalf("%s: acknowledged seq=%d is lost", when, seq)
		}
	}
}

// TestKillInRecovery: an archive that was killed under load is killed again and again while
// it recovers, at any moment of it, and each time another life finds what that left. In the
// end everything is there once.
func TestKillInRecovery(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	acked := map[uint64]*Delivery{}
	opened := 0
	for round := range 4 {
		// Work, so that there is a torn tail to recover.
		killed(t, []string{childEnv + "=" + dir, childIndexes + "=1"}, "open", time.Duration(20+rng.IntN(60))*time.Millisecond, acked)
		// How long a recovery takes is the machine's: the kills come closer where it gets far.
		most := 20 * time.Millisecond
		for range 8 {
			before := len(acked)
			if !killed(t, []string{childEnv + "=" + dir, childIndexes + "=1"}, "begun", time.Duration(rng.Int64N(int64(most))), acked) {
				t.Fatal("the child did not begin")
			}
			if len(acked) > before {
				opened++
				most = max(most/2, time.Millisecond)
			} else {
				most = min(2*most, time.Second)
			}
		}
		if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
			t.Fatalf("round %d: %v %q", round, err, res.Damage)
		}
		a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: 64 << 10})
		onceAndIntact(t, a, acked, fmt.Sprintf("round %d", round))
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acked) == 0 {
		t.Fatal("no life got as far as a delivery: nothing was there to lose")
	}
	t.Logf("32 kills of a start, of which %d came after it; %d acknowledged", opened, len(acked))
}

// TestKillInIndexRebuild: the index is thrown away and the process killed while it is built
// anew and deliveries come in; the next life goes on building, and in the end the index has
// everything, each once.
func TestKillInIndexRebuild(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	acked := map[uint64]*Delivery{}
	a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: 64 << 10, MaxWait: time.Hour})
	for n := range 5000 {
		d := testDelivery(1_000_000 + n)
		mustAppend(t, a, d)
		acked[d.Seq] = d
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for life := range 8 {
		if life%2 == 0 {
			if err := os.RemoveAll(filepath.Join(dir, indexDir)); err != nil {
				t.Fatal(err)
			}
		}
		killed(t, []string{childEnv + "=" + dir, childIndexes + "=1"}, "open", time.Duration(rng.IntN(200))*time.Millisecond, acked)
	}
	a = mustOpen(t, dir, Options{SegmentBytes: 64 << 10})
	onceAndIntact(t, a, acked, "after 8 kills")
	eventually(t, "the index is complete", func() bool { return a.Indexed() >= a.Synced() && a.IndexReady() })
	found := map[uint64]int{}
	for f := (Filter{Limit: MaxLimit, Provider: "stripe"}); ; {
		p, err := a.Query(context.Background(), f)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.Rows {
			found[p.Rows[i].Seq]++
		}
		if f.Cursor = p.Next; f.Cursor == "" {
			break
		}
	}
	for seq := range acked {
		if found[seq] != 1 {
			t.Fatalf("seq=%d is %d times in the index", seq, found[seq])
		}
	}
	var counted int64
	first := testDelivery(0).ReceivedAt
	c, err := a.Counts(context.Background(), first, first.AddDate(0, 1, 0), time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range c.Buckets {
		counted += b.Accepted
	}
	if counted != int64(len(found)) {
		t.Fatalf("%d deliveries are counted, %d are listed", counted, len(found))
	}
}

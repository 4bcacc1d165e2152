package archive

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestKilledThenCut: a life removes the newest segment, as nothing is in it, and is killed
// before any sync of the directory. The next one finds the one before it, empty too, and
// removes that. A power cut may then bring the first back and not the second: a segment
// whose predecessor is missing, which looks like somebody's work. (Found by seed 20275105 of
// TestCrashes, after 100,000 crashes.)
func TestKilledThenCut(t *testing.T) {
	segment := func(name string) bool {
		return strings.Contains(name, quarantineDir) && strings.HasSuffix(name, segmentSuffix)
	}
	for seed := range uint64(20) {
		disk := newCrashFS(rand.New(rand.NewPCG(seed, 0)))
		removed := 0
		// life opens the archive; until says which operation is the machine's last, or fails.
		life := func(until func(op, name string) error) []string {
			t.Helper()
			disk.fail = func(op, name string, _ int) error {
				if op == "remove" && segment(name) {
					removed++
				}
				return until(op, name)
			}
			a, err := Open(worldDir, Options{FS: disk, NoIndex: true, SegmentBytes: minSegmentBytes})
			if err != nil {
				if !errors.Is(err, errCrashed) {
					t.Fatal(err)
				}
				return nil
			}
			for range 3 { // so that the quarantine has its segment, and nothing in it is synced
				_ = a.Append(testDelivery(1))
			}
			damage := a.Damage()
			_ = a.Close()
			return damage
		}
		never := func(string, string) error { return nil }
		life(never)
		disk = disk.kill()
		life(func(op, name string) error {
			if op == "remove" && segment(name) {
				return errInjected // so there are two
			}
			return nil
		})
		disk = disk.kill()
		removed = 0
		for range 2 {
			life(func(op, name string) error {
				if removed > 0 && op != "remove" {
					return errCrashed
				}
				return nil
			})
			if removed != 1 {
				t.Fatalf("seed %d: %d segments were removed by a start, want 1", seed, removed)
			}
			removed = 0
			disk = disk.kill()
		}
		disk = disk.powerCut()
		if damage := life(never); len(damage) > 0 {
			t.Fatalf("seed %d: a crash is taken for damage: %q", seed, damage)
		}
	}
}

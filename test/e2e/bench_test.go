package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"
)

// TestBenchCommand: `penstock bench` measures a gateway that really took, stored and
// published what it was sent, and leaves nothing behind.
func TestBenchCommand(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), binary(t), "bench", "github", "--dir", dir, "--time", "300ms", "--connections", "8", "--json").Output()
	if err != nil {
		t.Fatalf("bench: %v\n%s", err, stderrOf(err))
	}
	type run struct {
		Deliveries int     `json:"deliveries"`
		PerSync    float64 `json:"deliveries_per_sync"`
		CPU        float64 `json:"cpu_us_per_delivery"`
		Estimate   float64 `json:"estimated_per_second"`
	}
	var r struct {
		Provider   string  `json:"provider"`
		SyncP50    float64 `json:"disk_sync_p50_ms"`
		SyncP99    float64 `json:"disk_sync_p99_ms"`
		Signatures float64 `json:"signatures_per_second_and_core"`
		Acked      run     `json:"acked"`
		Published  run     `json:"published"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Provider != "github" || r.Signatures <= 0 || r.SyncP99 < r.SyncP50 {
		t.Errorf("%s", out)
	}
	for _, run := range []run{r.Acked, r.Published} {
		if run.Deliveries < 1 || run.PerSync <= 0 || run.CPU <= 0 || run.Estimate <= 0 {
			t.Errorf("nothing measured: %s", out)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func stderrOf(err error) []byte {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.Stderr
	}
	return nil
}

package cli

import (
	"slices"
	"time"

	"penstock/archive"
)

// benchDisk overwrites a pre-written file block by block and makes each durable, as the
// archive does with a segment.
func benchDisk(name string, d time.Duration, r *benchResult) error {
	const size, block = 8 << 20, 4 << 10
	disk := archive.OS()
	f, err := disk.Create(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close(); _ = disk.Remove(name) }()
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	var took []time.Duration
	b := make([]byte, block)
	for start := time.Now(); time.Since(start) < d || len(took) < 50; {
		begin := time.Now()
		b[0]++
		if _, err := f.WriteAt(b, int64(len(took)*block%size)); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	r.SyncP50ms = float64(percentile(took, 50).Microseconds()) / 1000
	r.SyncP99ms = float64(percentile(took, 99).Microseconds()) / 1000
	return nil
}

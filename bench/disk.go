package main

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// diskProbe is how long the disk takes to make 4 KiB durable: the floor of every ack.
type diskProbe struct {
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
}

// probeDisk overwrites a pre-written file as the archive does, for about a second.
func probeDisk(dir string) (diskProbe, error) {
	const size, block = 8 << 20, 4 << 10
	f, err := os.Create(filepath.Join(dir, "disk-probe"))
	if err != nil {
		return diskProbe{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, size)); err != nil {
		return diskProbe{}, err
	}
	if err := f.Sync(); err != nil {
		return diskProbe{}, err
	}
	var lat []time.Duration
	b := make([]byte, block)
	for start := time.Now(); time.Since(start) < time.Second || len(lat) < 100; {
		begin := time.Now()
		b[0]++
		if _, err := f.WriteAt(b, int64(len(lat)*block%size)); err != nil {
			return diskProbe{}, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return diskProbe{}, err
		}
		lat = append(lat, time.Since(begin))
	}
	slices.Sort(lat)
	return diskProbe{P50: lat[len(lat)/2], P99: lat[len(lat)*99/100]}, nil
}

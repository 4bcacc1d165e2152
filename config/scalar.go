package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes: "10MiB" (1024), "10MB" (1000), "512B" or a bare number.
type Size int64

// Int64 gives the bytes.
func (s Size) Int64() int64 { return int64(s) }

// String gives the largest binary unit that divides it.
func (s Size) String() string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i, n := 0, int64(s)
	for i < len(units)-1 && n != 0 && n%1024 == 0 {
		i, n = i+1, n/1024
	}
	return strconv.FormatInt(n, 10) + units[i]
}

var sizeUnits = []struct {
	name string
	mult float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// ParseSize reads a size.
func ParseSize(s string) (Size, error) {
	num, mult := s, 1.0
	for _, u := range sizeUnits {
		if strings.HasSuffix(s, u.name) {
			num, mult = strings.TrimSpace(strings.TrimSuffix(s, u.name)), u.mult
			break
		}
	}
	if num == "" || strings.Trim(num, "0123456789.") != "" {
		return 0, fmt.Errorf("%q is no size", s)
	}
	f, err := strconv.ParseFloat(num, 64)
	if err != nil || f*mult >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is no size", s)
	}
	return Size(f * mult), nil
}

var durationUnits = []struct {
	name string
	unit time.Duration
}{
	{"ns", 1}, {"us", time.Microsecond}, {"ms", time.Millisecond}, // before "s" and "m"
	{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour},
	{"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour},
}

// ParseDuration reads "90d", "8d12h", "1.5h", "100ms": time.ParseDuration's format with
// days of 24 hours and weeks, without a sign.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is no duration", s)
	if s == "0" {
		return 0, nil
	}
	if s == "" {
		return 0, bad
	}
	var sum float64
	for rest := s; rest != ""; {
		i := 0
		for i < len(rest) && (rest[i] == '.' || '0' <= rest[i] && rest[i] <= '9') {
			i++
		}
		n, err := strconv.ParseFloat(rest[:i], 64)
		if err != nil {
			return 0, bad
		}
		rest = rest[i:]
		unit, name := time.Duration(0), ""
		for _, u := range durationUnits {
			if strings.HasPrefix(rest, u.name) {
				unit, name = u.unit, u.name
				break
			}
		}
		if unit == 0 {
			return 0, bad
		}
		sum += n * float64(unit)
		rest = rest[len(name):]
	}
	if sum >= math.MaxInt64 {
		return 0, bad
	}
	return time.Duration(sum), nil
}

// FormatDuration writes d as ParseDuration reads it, in days where it is whole days.
func FormatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return d.String()
}

package cli

import (
	"strings"
	"testing"
)

func TestSumMetrics(t *testing.T) {
	m, err := sumMetrics(strings.NewReader(`# TYPE a_total counter
a_total{source="x"} 2
a_total{source="y"} 3
# TYPE b gauge
b 7
# TYPE c_seconds histogram
c_seconds_bucket{le="1"} 4
c_seconds_bucket{le="+Inf"} 5
c_seconds_sum 9
c_seconds_count 5
`))
	if err != nil || m["a_total"] != 5 || m["b"] != 7 || m["c_seconds"] != 5 {
		t.Fatalf("%v %v", m, err)
	}
	if _, err := sumMetrics(strings.NewReader("a_total{ 2\n")); err == nil {
		t.Error("what is no metric was read as one")
	}
}

func TestEstimate(t *testing.T) {
	if e := estimate(4, 100); e != 28_000 {
		t.Errorf("4 cores, 100 us: %g a second", e)
	}
	if e := estimate(4, 0); e != 0 {
		t.Errorf("nothing measured: %g", e)
	}
}

// TestBenchRefuses: what cannot be measured is said, and where the mistake is.
func TestBenchRefuses(t *testing.T) {
	w := newWorld(t)
	w.want(exitUsage, `stripe`, "bench", "strype")
	w.want(exitUsage, "at most one provider", "bench", "stripe", "github")
	w.want(exitUsage, "--connections", "bench", "--connections", "0")
	w.want(exitUsage, "--dir", "bench", "--dir", "/does/not/exist")
}

// Archivebench measures the archive on one disk: durable records a second beside a bare
// loop of write and fdatasync in the same run, bytes written for each byte archived, how
// long recovery takes, what indexing wants, and how long each filter of a search takes. It
// prints tables, and JSON.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"penstock/archive"
)

type result struct {
	Callers     int     `json:"callers,omitempty"`
	Mode        string  `json:"mode"`
	PerSecond   float64 `json:"records_per_second,omitempty"`
	P50         float64 `json:"p50_ms,omitempty"`
	P99         float64 `json:"p99_ms,omitempty"`
	Batch       float64 `json:"records_per_sync,omitempty"`
	Bare        float64 `json:"bare_records_per_second,omitempty"`
	OfBare      float64 `json:"of_bare,omitempty"`
	Written     float64 `json:"bytes_written_per_byte,omitempty"`
	RecoverGiB  float64 `json:"recovery_seconds_per_gib,omitempty"`
	IndexRSS    float64 `json:"index_rss_mib,omitempty"`
	IndexPerSec float64 `json:"index_deliveries_per_second,omitempty"`
	IndexBytes  float64 `json:"index_bytes_per_delivery,omitempty"`
	RawBytes    float64 `json:"archive_bytes_per_delivery,omitempty"` // before compression, outcome and all
	Note        string  `json:"note,omitempty"`

	Search []searchRow `json:"search,omitempty"`
}

type options struct {
	dir   string
	body  int
	time  time.Duration
	index int
	asks  int
	tail  int64
	keep  string
}

func main() {
	var o options
	callers := flag.String("callers", "1,64,256,1024", "`LIST` of callers at once")
	modes := flag.String("modes", "plain,encrypted,packed", "`LIST` of plain, encrypted, packed; \"\" = none of them")
	flag.StringVar(&o.dir, "dir", "", "`DIR` on the disk to measure; default the temporary directory")
	flag.IntVar(&o.body, "body", 1024, "`BYTES` of a body")
	flag.DurationVar(&o.time, "time", 3*time.Second, "how long each measurement takes")
	flag.IntVar(&o.index, "index", 200_000, "`NUMBER` of deliveries to index; 0 = none")
	flag.IntVar(&o.asks, "asks", 30, "how `OFTEN` each filter is asked")
	flag.StringVar(&o.keep, "keep", "", "`DIR` in which the deliveries to index stay for the next run; default: they are removed")
	flag.Int64Var(&o.tail, "tail", 256<<20, "`BYTES` of the newest segment for the recovery")
	asJSON := flag.Bool("json", false, "JSON alone")
	flag.Parse()
	results, err := run(&o, commas(*callers), commas(*modes))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if !*asJSON {
		table(results)
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(results); err != nil {
		os.Exit(1)
	}
}

func commas(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) }

func run(o *options, callers, modes []string) (list []result, err error) {
	dir, err := os.MkdirTemp(o.dir, "archivebench-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	n := 0
	next := func() string { n++; return filepath.Join(dir, strconv.Itoa(n)) }
	for _, mode := range modes {
		for _, c := range callers {
			k, err := strconv.Atoi(c)
			if err != nil || k < 1 {
				return nil, fmt.Errorf("-callers: %q is no number of callers", c)
			}
			r, err := appending(o, next(), mode, k)
			if err != nil {
				return nil, err
			}
			if r.Bare, err = bare(o, next(), r.Batch); err != nil {
				return nil, err
			}
			r.OfBare = r.PerSecond / r.Bare
			list = append(list, r)
		}
	}
	if o.tail > 0 {
		r, err := recovery(o, next(), next())
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	if o.index > 0 {
		r, err := searching(o, cmp.Or(o.keep, next()))
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

func opened(dir, mode string, reg prometheus.Registerer) (*archive.Archive, error) {
	a := archive.Options{NoIndex: true, NoPack: mode != "packed", MaxWait: time.Hour, Registerer: reg,
		Retention: archive.Retention{Size: 256 << 20}} // so that files are used again, as they are in the long run
	switch mode {
	case "plain", "packed":
	case "encrypted":
		a.Encryption = &archive.Encryption{Key: bytes.Repeat([]byte{1}, archive.KeyBytes)}
	default:
		return nil, fmt.Errorf("-modes: %q is none of plain, encrypted, packed", mode)
	}
	return archive.Open(dir, a)
}

func delivery(o *options, n int) *archive.Delivery {
	// Half of a body repeats from one to the next, as those of one provider do.
	body := bytes.Repeat(fmt.Appendf(nil, `{"id":"evt_%d","type":"payment.captured","amount":%d}`, n, n*7919), 1+o.body/50)[:o.body]
	return &archive.Delivery{ReceivedAt: time.Now(), Source: "source-" + strconv.Itoa(n%10), Provider: "stripe", Verdict: archive.Accepted,
		VerifiedBy: "hmac-sha256:ab12", Method: "POST", Target: []byte("/in/stripe"), Header: bytes.Repeat([]byte("h"), 200), Body: body}
}

// appending lets callers append for the time, after as long again in which the files come
// into their steady state.
func appending(o *options, dir, mode string, callers int) (r result, err error) {
	reg := prometheus.NewRegistry()
	a, err := opened(dir, mode, reg)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	var measuring, stop atomic.Bool
	var failed atomic.Pointer[error]
	took := make([][]float64, callers)
	var bytesIn atomic.Int64
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			d := delivery(o, w)
			for !stop.Load() {
				at := time.Now()
				c := *d
				c.ReceivedAt = at
				if err := a.Append(&c); err != nil {
					failed.Store(&err)
					return
				}
				if measuring.Load() {
					took[w] = append(took[w], time.Since(at).Seconds()*1000)
					bytesIn.Add(int64(len(d.Body) + len(d.Header) + len(d.Target) + 130))
				}
			}
		})
	}
	time.Sleep(o.time / 2)
	records, syncs := batches(reg)
	before := diskWritten(dir)
	measuring.Store(true)
	start := time.Now()
	time.Sleep(o.time)
	measuring.Store(false)
	elapsed := time.Since(start).Seconds()
	after := diskWritten(dir)
	records2, syncs2 := batches(reg)
	stop.Store(true)
	wg.Wait()
	if e := failed.Load(); e != nil {
		return r, *e
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	if len(all) == 0 {
		return r, errors.New("nothing was appended in the time; give -time more")
	}
	r = result{Callers: callers, Mode: mode, PerSecond: float64(len(all)) / elapsed, P50: all[len(all)/2], P99: all[len(all)*99/100],
		Batch: (records2 - records) / max(syncs2-syncs, 1)}
	if after > before && bytesIn.Load() > 0 {
		r.Written = float64(after-before) / float64(bytesIn.Load())
	}
	return r, nil
}

// bare writes batches of that many records over a file that was written before, and syncs
// each: what the disk gives at best.
func bare(o *options, path string, batch float64) (perSecond float64, err error) {
	const size = 64 << 20
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	if _, err := f.Write(make([]byte, size)); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	b := bytes.Repeat([]byte("b"), max(int(batch*float64(o.body+340)), 1))
	off, n, start := int64(0), 0, time.Now()
	for time.Since(start) < o.time {
		if off+int64(len(b)) > size {
			off = 0
		}
		if _, err := f.WriteAt(b, off); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		off += int64(len(b))
		n++
	}
	return float64(n) * batch / time.Since(start).Seconds(), nil
}

// recovery opens a copy of an archive whose newest segment was being written.
func recovery(o *options, dir, copied string) (r result, err error) {
	a, err := archive.Open(dir, archive.Options{NoIndex: true, NoPack: true, MaxWait: time.Hour, SegmentBytes: min(max(2*o.tail, 64<<20), 1<<30)})
	if err != nil {
		return r, err
	}
	if err := fill(o, a, int(o.tail/int64(o.body+340))); err != nil {
		return r, errors.Join(err, a.Close())
	}
	err = copyOf(dir, copied)
	size := a.Stats().Bytes
	if err = errors.Join(err, a.Close()); err != nil {
		return r, err
	}
	start := time.Now()
	b, err := archive.Open(copied, archive.Options{NoIndex: true, NoPack: true})
	if err != nil {
		return r, err
	}
	took := time.Since(start).Seconds()
	return result{Mode: "recovery", RecoverGiB: took / (float64(size) / (1 << 30)), Note: fmt.Sprintf("newest segment of %d MiB, in the page cache", size>>20)}, b.Close()
}

// copyOf copies a directory that is in use: what goes away meanwhile is not needed.
func copyOf(from, to string) error {
	return filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if e.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o600)
	})
}

func fill(o *options, a *archive.Archive, n int) error {
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	var next atomic.Int64
	for range 256 {
		wg.Go(func() {
			for {
				k := int(next.Add(1))
				if k > n {
					return
				}
				if err := a.Append(delivery(o, k)); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if e := failed.Load(); e != nil {
		return *e
	}
	return nil
}

// batches gives how many records were synced, and with how many syncs.
func batches(reg *prometheus.Registry) (records, syncs float64) {
	families, err := reg.Gather()
	if err != nil {
		return 0, 0
	}
	for _, f := range families {
		if f.GetName() != "penstock_archive_batch_records" {
			continue
		}
		for _, m := range f.GetMetric() {
			records += m.GetHistogram().GetSampleSum()
			syncs += float64(m.GetHistogram().GetSampleCount())
		}
	}
	return records, syncs
}

// diskWritten is what was written to the disk that dir is on, by whomever; 0 where that is not
// told. What the kernel counts for a process is not it: of a file in large folios it counts a
// whole folio for each small write (260 times the bytes, one caller, Linux 6.18), where blocks
// are written.
func diskWritten(dir string) int64 {
	var st syscall.Stat_t
	if syscall.Stat(dir, &st) != nil {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	f := strings.Fields(string(b))
	if err != nil || len(f) < 7 {
		return 0
	}
	sectors, _ := strconv.ParseInt(f[6], 10, 64) // 0 is what is not known
	return sectors * 512
}

// resident is the process's memory in MiB.
func resident() float64 { return float64(procNumber("/proc/self/status", "VmRSS:")) / 1024 }

func procNumber(file, key string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64) // 0 is what is not known
			return n
		}
	}
	return 0
}

func table(list []result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "MODE\tCALLERS\tRECORDS/S\tBARE\tOF BARE\tP50 MS\tP99 MS\tPER SYNC\tWRITTEN/BYTE\tNOTE")
	num := func(f string, v float64) string {
		if v == 0 {
			return "-"
		}
		return fmt.Sprintf(f, v)
	}
	for _, r := range list {
		note := r.Note
		if r.RecoverGiB > 0 {
			note = fmt.Sprintf("%.2f s per GiB; %s", r.RecoverGiB, note)
		}
		if r.IndexRSS > 0 {
			note = fmt.Sprintf("%.0f MiB resident, %.0f deliveries/s, %.0f bytes of index beside %.0f of archive a delivery; %s",
				r.IndexRSS, r.IndexPerSec, r.IndexBytes, r.RawBytes, note)
		}
		fmt.Fprintln(w, strings.Join([]string{r.Mode, num("%.0f", float64(r.Callers)), num("%.0f", r.PerSecond), num("%.0f", r.Bare), num("%.0f%%", 100*r.OfBare),
			num("%.2f", r.P50), num("%.2f", r.P99), num("%.1f", r.Batch), num("%.2f", r.Written), note}, "\t"))
	}
	_ = w.Flush() // to standard output
	for _, r := range list {
		if len(r.Search) > 0 {
			searchTable(r.Search)
		}
	}
}

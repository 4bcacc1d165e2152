package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"penstock/archive"
)

// The archive that is searched: deliveries of 90 days with what became of them. Of an order
// come three deliveries, 30 days apart, so that an order's id leads across all of it.
const (
	searchDays    = 90
	searchSources = 20
	searchTenants = 1000
)

var searchStart = time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)

var (
	searchProviders = []string{"stripe", "liqpay", "wayforpay", "monobank", "adyen", "github", "shopify"}
	searchTypes     = []string{"payment.captured", "payment.captured", "payment.captured", "payment.authorized", "payment.failed", "refund.succeeded", "order.created", "dispute.opened"}
	searchStatuses  = []string{"succeeded", "succeeded", "succeeded", "requires_capture", "failed", "refunded", "open", "needs_response"}
)

// searchRow is one filter's line in the table.
type searchRow struct {
	Filter string  `json:"filter"`
	Rows   int     `json:"rows"`     // of the last answer
	First  float64 `json:"first_ms"` // nothing of it in the index's cache
	P50    float64 `json:"p50_ms"`   // of the runs, each with another value where the filter has one
	Worst  float64 `json:"worst_ms"` //
	Text   string  `json:"text,omitempty"`
}

// hasty is a disk whose syncs do nothing: what is searched is made once and measured later.
type hasty struct{ archive.FS }

type hastyFile struct{ archive.File }

func (hastyFile) Sync() error { return nil }

func (h hasty) Create(name string) (archive.File, error) {
	f, err := h.FS.Create(name)
	return hastyFile{f}, err
}

func (h hasty) Open(name string, write bool) (archive.File, error) {
	f, err := h.FS.Open(name, write)
	return hastyFile{f}, err
}

// searchDelivery is the n-th of total, and what became of it.
func searchDelivery(o *options, n, total int) (archive.Delivery, archive.Outcome) {
	at := searchStart.Add(time.Duration(float64(n) / float64(total) * searchDays * float64(24*time.Hour)))
	source := n % searchSources
	kind := int(mix(n) % uint64(len(searchTypes)))
	order := n % max(total/3, 1)
	provider := searchProviders[source%len(searchProviders)]
	live, minor := n%100 != 0, int64(mix(n)%1_000_000)
	f := archive.Fields{
		EventID: searchID("evt_", n), EventType: provider + "." + searchTypes[kind], Type: searchTypes[kind], CEID: searchID("evt_", n),
		OrderID: searchID("order-", order), PaymentID: searchID("pi_", order), Status: searchStatuses[kind], RequestID: searchID("req_", n),
		Livemode: &live, AmountMinor: &minor, Currency: "EUR"}
	if n%2 == 0 {
		f.IdempotencyKey = searchID("idem_", n)
	}
	body := fmt.Appendf(nil, `{"id":"%s","object":"event","created":%d,"livemode":%t,"type":"%s","data":{"object":{"id":"%s","order":"%s","amount":%d,"currency":"eur","status":"%s","receipt":"`,
		f.EventID, at.Unix(), live, f.EventType, f.PaymentID, f.OrderID, minor, f.Status)
	for i := uint64(0); len(body) < o.body-4; i++ { // a third of it as no compressor shortens it
		body = append(body, strconv.FormatUint(mix(n)^mix(int(i)), 16)...)
		body = append(body, "-0000-receipt-line-of-a-shop-000"...)
	}
	d := archive.Delivery{ReceivedAt: at, Source: "shop-" + strconv.Itoa(source), Provider: provider, Tenant: "acct_" + strconv.Itoa(int(mix(n)%searchTenants)),
		Verdict: archive.Accepted, VerifiedBy: "hmac-sha256:ab12", Method: "POST", Target: []byte("/in/shop-" + strconv.Itoa(source)),
		Header: fmt.Appendf(nil, "Content-Type: application/json\r\nX-Signature: t=%d,v1=%016x%016x%016x%016x\r\nX-Request-Id: %s\r\nUser-Agent: Provider/1.0\r\n",
			at.Unix(), mix(n), mix(n+1), mix(n+2), mix(n+3), f.RequestID),
		Body: append(body, `"}}}`...)}
	out := archive.Outcome{Items: 1, Kind: archive.Published, At: at.Add(30 * time.Millisecond), Sink: "kafka:5L6g3nShT-eMCtK--X86sw",
		Topic: "webhooks." + provider, Partition: int32(n % 6), Offset: int64(n), Fields: f} //nolint:gosec // both are small
	binary.BigEndian.PutUint64(out.Identity[:], mix(n))
	binary.BigEndian.PutUint64(out.Identity[8:], uint64(n)) //nolint:gosec // n is not negative
	out.Content = out.Identity
	switch {
	case n%20 == 7:
		out.Kind, out.Of, out.Identity, out.Content = archive.Duplicate, "01K000000000000000000000000", archive.Identity{}, archive.Identity{}
	case n%100 == 3:
		out.Kind, out.Reason = archive.Filtered, "type"
	case n%10_000 == 5:
		out.Kind, out.Reason = archive.Dead, "too_large"
	case n%10_000 == 6:
		out.Kind, out.Reason = archive.Held, "paused"
	}
	return d, out
}

// mix makes numbers that look like chance and are the same each time.
func mix(n int) uint64 {
	x := uint64(n) + 0x9e3779b97f4a7c15 //nolint:gosec // any bits will do
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func searchID(prefix string, n int) string { return fmt.Sprintf("%s%014x%07d", prefix, mix(n)>>8, n) }

// fillSearch makes the deliveries: every thousandth is refused, every ten thousandth has no
// outcome yet.
func fillSearch(o *options, dir string) (err error) {
	a, err := archive.Open(dir, archive.Options{FS: hasty{archive.OS()}, NoIndex: true, NoPack: true, MaxWait: time.Hour})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	const lot, workers = 50, 32
	lots := make(chan int)
	errs := make(chan error, workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for from := range lots {
				if err := appendLot(o, a, from, min(from+lot, o.index)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	go func() { wg.Wait(); close(errs) }()
	for from := 0; from < o.index; from += lot {
		select {
		case lots <- from:
		case err = <-errs:
			from = o.index
		}
	}
	close(lots)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

func appendLot(o *options, a *archive.Archive, from, to int) error {
	outs := make([]archive.Outcome, 0, to-from)
	for n := from; n < to; n++ {
		d, out := searchDelivery(o, n, o.index)
		if n%1000 == 999 {
			d.Reason = "signature_mismatch"
			if _, err := a.Reject(&d); err != nil {
				return err
			}
			continue
		}
		if err := a.Append(&d); err != nil {
			return err
		}
		if out.Delivery = d.Seq; n%10_000 != 8 {
			outs = append(outs, out)
		}
	}
	return a.AppendOutcomes(outs)
}

// searching builds the index of an archive of o.index deliveries with outcomes, says what
// that costs, and asks it everything that an admin can ask.
func searching(o *options, dir string) (r result, err error) {
	if _, err := os.Stat(filepath.Join(dir, "segments")); errors.Is(err, fs.ErrNotExist) {
		if err := fillSearch(o, dir); err != nil {
			return r, err
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
		return r, err
	}
	debug.FreeOSMemory()
	before, start := resident(), time.Now()
	a, err := archive.Open(dir, archive.Options{NoPack: true})
	if err != nil {
		return r, err
	}
	rss := 0.0
	for a.Indexed() < a.Synced() {
		rss = max(rss, resident())
		time.Sleep(20 * time.Millisecond)
	}
	took := time.Since(start)
	raw := a.Stats().RawBytes
	if err := a.Close(); err != nil { // the queries find nothing in the index's cache
		return r, err
	}
	indexed, err := size(filepath.Join(dir, "index"))
	if err != nil {
		return r, err
	}
	n := float64(o.index)
	r = result{Mode: "index", IndexRSS: rss, IndexPerSec: n / took.Seconds(), IndexBytes: float64(indexed) / n, RawBytes: float64(raw) / n,
		Note: fmt.Sprintf("%d deliveries with outcomes, of %d days, in %s (resident before: %.0f MiB)", o.index, searchDays, took.Round(time.Second), before)}
	debug.FreeOSMemory()
	if a, err = archive.Open(dir, archive.Options{NoPack: true}); err != nil {
		return r, err
	}
	r.Search, err = queries(o, a)
	return r, errors.Join(err, a.Close())
}

func size(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// queries measures each filter of the list, and pairs; of those with many values each run
// asks for another.
func queries(o *options, a *archive.Archive) ([]searchRow, error) {
	pick := func(i int) int { return int(mix(i*7919+1)%uint64(o.index/10_000+1))*10_000 + 10 }    //nolint:gosec // small; one that is published
	day := func(i int) time.Time { return searchStart.AddDate(0, 0, int(mix(i)%(searchDays-1))) } //nolint:gosec // small
	yes, no := true, false
	rows := make([]searchRow, 0, 64)
	for _, q := range []struct {
		name string
		f    func(i int) archive.Filter
	}{
		{"none (the newest)", func(int) archive.Filter { return archive.Filter{} }},
		{"limit=500", func(int) archive.Filter { return archive.Filter{Limit: 500} }},
		{"source", func(i int) archive.Filter { return archive.Filter{Source: shop(i)} }},
		{"provider", func(i int) archive.Filter { return archive.Filter{Provider: searchProviders[i%7]} }},
		{"verdict=accepted", func(int) archive.Filter { return archive.Filter{Verdict: "accepted"} }},
		{"verdict=rejected", func(int) archive.Filter { return archive.Filter{Verdict: "rejected"} }},
		{"reason", func(int) archive.Filter { return archive.Filter{Reason: "signature_mismatch"} }},
		{"outcome=published", func(int) archive.Filter { return archive.Filter{Outcome: "published"} }},
		{"outcome=duplicate", func(int) archive.Filter { return archive.Filter{Outcome: "duplicate"} }},
		{"outcome=dead", func(int) archive.Filter { return archive.Filter{Outcome: "dead"} }},
		{"outcome=pending", func(int) archive.Filter { return archive.Filter{Outcome: archive.Pending} }},
		{"event_type", func(i int) archive.Filter { return archive.Filter{EventType: "stripe." + searchTypes[i%8]} }},
		{"type", func(i int) archive.Filter { return archive.Filter{Type: searchTypes[i%8]} }},
		{"event_id", func(i int) archive.Filter { return archive.Filter{EventID: searchID("evt_", pick(i))} }},
		{"event_id, absent", func(i int) archive.Filter { return archive.Filter{EventID: searchID("none_", i)} }},
		{"order_id (3, over 90 days)", func(i int) archive.Filter {
			return archive.Filter{OrderID: searchID("order-", pick(i)%max(o.index/3, 1))}
		}},
		{"payment_id", func(i int) archive.Filter {
			return archive.Filter{PaymentID: searchID("pi_", pick(i)%max(o.index/3, 1))}
		}},
		{"tenant (1 of 1000)", func(i int) archive.Filter { return archive.Filter{Tenant: "acct_" + strconv.Itoa(i)} }},
		{"request_id", func(i int) archive.Filter { return archive.Filter{RequestID: searchID("req_", pick(i))} }},
		{"idempotency_key", func(i int) archive.Filter { return archive.Filter{IdempotencyKey: searchID("idem_", pick(i))} }},
		{"livemode=true", func(int) archive.Filter { return archive.Filter{Livemode: &yes} }},
		{"livemode=false", func(int) archive.Filter { return archive.Filter{Livemode: &no} }},
		{"status", func(i int) archive.Filter { return archive.Filter{Status: searchStatuses[i%8]} }},
		{"from, to (an hour of any day)", func(i int) archive.Filter { return archive.Filter{From: day(i), To: day(i).Add(time.Hour)} }},
		{"to (all before any day)", func(i int) archive.Filter { return archive.Filter{To: day(i)} }},
		{"source + outcome=published", func(i int) archive.Filter { return archive.Filter{Source: shop(i), Outcome: "published"} }},
		{"source + outcome=dead", func(i int) archive.Filter { return archive.Filter{Source: shop(i), Outcome: "dead"} }},
		{"source + type", func(i int) archive.Filter { return archive.Filter{Source: shop(i), Type: searchTypes[i%8]} }},
		{"source + status", func(i int) archive.Filter { return archive.Filter{Source: shop(i), Status: searchStatuses[i%8]} }},
		{"source + livemode=false", func(i int) archive.Filter { return archive.Filter{Source: shop(i), Livemode: &no} }},
		{"source + verdict=rejected", func(i int) archive.Filter { return archive.Filter{Source: shop(i), Verdict: "rejected"} }},
		{"source + tenant", func(i int) archive.Filter { return archive.Filter{Source: shop(i), Tenant: "acct_" + strconv.Itoa(i)} }},
		{"source + an hour", func(i int) archive.Filter {
			return archive.Filter{Source: shop(i), From: day(i), To: day(i).Add(time.Hour)}
		}},
		{"provider + status", func(i int) archive.Filter {
			return archive.Filter{Provider: searchProviders[i%7], Status: searchStatuses[i%8]}
		}},
		{"type + outcome=dead", func(i int) archive.Filter { return archive.Filter{Type: searchTypes[i%8], Outcome: "dead"} }},
		{"source + provider that never meet", func(int) archive.Filter { return archive.Filter{Source: shop(0), Provider: searchProviders[3]} }},
		{"type + status that never meet", func(int) archive.Filter { return archive.Filter{Type: "payment.failed", Status: "open"} }},
		{"rejected + livemode, never meet", func(int) archive.Filter { return archive.Filter{Verdict: "rejected", Livemode: &yes} }},
		{"q (an id), an hour", func(i int) archive.Filter {
			return archive.Filter{Q: searchID("evt_", i), From: day(i), To: day(i).Add(time.Hour)}
		}},
		{"q (a word that is common)", func(int) archive.Filter { return archive.Filter{Q: "refund"} }},
		{"q (nowhere), one page of 90 days", func(i int) archive.Filter { return archive.Filter{Q: searchID("none_", i)} }},
	} {
		r, err := ask(a, q.name, o.asks, q.f)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", q.name, err)
		}
		rows = append(rows, r)
	}
	for _, t := range []struct {
		name string
		long time.Duration
	}{{"text, an hour", time.Hour}, {"text, a day", 24 * time.Hour}} {
		at := searchStart.AddDate(0, 0, searchDays/2)
		r, err := fullText(a, t.name, archive.Filter{Text: "no such words", From: at, To: at.Add(t.long)})
		if err != nil {
			return rows, fmt.Errorf("%s: %w", t.name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func shop(i int) string { return "shop-" + strconv.Itoa(i%searchSources) }

// ask gives the time of the first page.
func ask(a *archive.Archive, name string, times int, f func(i int) archive.Filter) (r searchRow, err error) {
	took := make([]float64, 0, times)
	for i := range times {
		start := time.Now()
		p, err := a.Query(context.Background(), f(i))
		if err != nil {
			return r, err
		}
		took = append(took, time.Since(start).Seconds()*1000)
		r.Rows = len(p.Rows)
	}
	r.Filter, r.First = name, took[0]
	slices.Sort(took)
	r.P50, r.Worst = took[len(took)/2], took[len(took)-1]
	return r, nil
}

// fullText reads all pages of a search.
func fullText(a *archive.Archive, name string, f archive.Filter) (r searchRow, err error) {
	start, pages, scanned := time.Now(), 0, int64(0)
	for pages == 0 || f.Cursor != "" {
		p, err := a.Query(context.Background(), f)
		if err != nil {
			return r, err
		}
		if pages == 0 {
			r.First = time.Since(start).Seconds() * 1000
		}
		pages++
		scanned += p.Progress.Scanned
		r.Rows += len(p.Rows)
		f.Cursor = p.Next
	}
	took := time.Since(start)
	r.Filter, r.P50, r.Worst = name, took.Seconds()*1000, took.Seconds()*1000
	r.Text = fmt.Sprintf("%d deliveries read in %d pages, %.0f a second", scanned, pages, float64(scanned)/took.Seconds())
	return r, nil
}

func searchTable(rows []searchRow) {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\nFILTER\tROWS\tFIRST MS\tP50 MS\tWORST MS\t")
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join([]string{r.Filter, strconv.Itoa(r.Rows), fmt.Sprintf("%.2f", r.First),
			fmt.Sprintf("%.2f", r.P50), fmt.Sprintf("%.2f", r.Worst), r.Text}, "\t"))
	}
	_ = w.Flush() // to standard output
}

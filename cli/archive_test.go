package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"penstock/archive"
)

// someArchive holds three accepted deliveries, one outcome and one refusal.
func someArchive(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "archive")
	a, err := archive.Open(dir, archive.Options{SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	delivery := func(source, body string, v archive.Verdict) *archive.Delivery {
		return &archive.Delivery{ReceivedAt: time.Date(2026, 5, 28, 20, 26, len(body)%60, 0, time.UTC), Source: source, Provider: "stripe", Verdict: v,
			Method: "POST", Target: []byte("/in/" + source), Header: []byte("X-A: 1\r\nX-A: 2\r\n"), Body: []byte(body)}
	}
	var first *archive.Delivery
	for i, source := range []string{"one", "two", "one"} {
		d := delivery(source, strings.Repeat("body-", i+1)+"\x00\xff", archive.Accepted)
		if err := a.Append(d); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = d
		}
	}
	refused := delivery("one", "bad", archive.Rejected)
	refused.Reason = "signature_mismatch"
	if _, err := a.Reject(refused); err != nil {
		t.Fatal(err)
	}
	if err := a.AppendOutcomes([]archive.Outcome{{Delivery: first.Seq, Items: 1, Kind: archive.Published, At: time.Now(), Topic: "webhooks.stripe", Offset: 7}}); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestArchiveCommands(t *testing.T) {
	w := newWorld(t)
	dir := someArchive(t)
	w.want(exitOK, "3 deliveries, 1 outcomes", "archive", "check", dir)
	w.want(exitOK, `"sound": true`, "archive", "check", dir, "--json")
	w.want(exitOK, "accepted", "archive", "stat", dir)
	w.want(exitOK, `"rejected": 1`, "archive", "stat", dir, "--json")
	w.want(exitUsage, "no archive", "archive", "check", t.TempDir())
	w.want(exitUsage, "no archive", "archive", "stat", t.TempDir())
	w.want(exitUsage, "name one directory", "archive", "check")
}

func TestArchiveExport(t *testing.T) {
	w := newWorld(t)
	dir := someArchive(t)
	export := func(args ...string) []exported {
		t.Helper()
		if code := w.run(t.Context(), append([]string{"archive", "export", dir}, args...)...); code != exitOK {
			t.Fatalf("exit %d: %s", code, w.err.String())
		}
		var out []exported
		for _, line := range bytes.Split(bytes.TrimSpace(w.out.Bytes()), []byte{'\n'}) {
			var e exported
			if err := json.Unmarshal(line, &e); err != nil && len(line) > 0 {
				t.Fatalf("%v: %s", err, line)
			}
			if len(line) > 0 {
				out = append(out, e)
			}
		}
		return out
	}
	all := export()
	if len(all) != 3 || all[0].ID == "" || all[0].Target != "/in/one" || len(all[0].Headers) != 2 || *all[0].BodyB64 != "Ym9keS0A/w==" {
		t.Errorf("%+v", all)
	}
	if one := export("--source", "one"); len(one) != 2 {
		t.Errorf("%d of source one", len(one))
	}
	if r := export("--rejected"); len(r) != 1 || r[0].Reason != "signature_mismatch" {
		t.Errorf("rejected: %+v", r)
	}
	if o := export("--outcomes"); len(o) != 4 || o[3].Kind != "outcome" || *o[3].Offset != 7 || o[3].Delivery != all[0].Seq {
		t.Errorf("with outcomes: %+v", o)
	}
	if r := export("--from", "2026-05-28T20:26:12Z"); len(r) != 2 {
		t.Errorf("%d from then on", len(r))
	}
	if r := export("--to", "2026-05-28T20:26:12Z"); len(r) != 1 {
		t.Errorf("%d before", len(r))
	}
	w.want(exitUsage, "is neither RFC 3339", "archive", "export", dir, "--from", "yesterday")
}

// TestArchiveDamage: a changed byte is found, named, and exit code 1.
func TestArchiveDamage(t *testing.T) {
	w := newWorld(t)
	dir := someArchive(t)
	files, err := filepath.Glob(filepath.Join(dir, "segments", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal("no segments")
	}
	found := false
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, []byte("body-body-\x00")); i >= 0 {
			found = true
			b[i] ^= 1
			if err := os.WriteFile(f, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found {
		t.Fatal("the body stands in no segment")
	}
	w.want(exitFound, "damage:", "archive", "check", dir)
	w.want(exitFound, `"sound": false`, "archive", "check", dir, "--json")
	w.want(exitFound, "damage:", "archive", "export", dir)
	if n := strings.Count(w.out.String(), "\n"); n != 2 {
		t.Errorf("%d of the 2 undamaged deliveries were exported", n)
	}
}

// TestArchiveExportRows: rows by filter as CSV and Parquet, beside a gateway that has the
// directory open and locked.
func TestArchiveExportRows(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "archive")
	a, err := archive.Open(dir, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	const n = 3000 // more than one batch of Parquet
	for i := range n {
		d := &archive.Delivery{ReceivedAt: time.Date(2026, 5, 28, 20, 0, i%60, i*1000, time.UTC), Source: "one", Provider: "stripe", Verdict: archive.Accepted,
			Method: "POST", Target: []byte("/in/one"), Body: []byte("body")}
		if i < 20 {
			if err := a.Append(d); err != nil {
				t.Fatal(err)
			}
			minor := int64(-i)
			if err := a.AppendOutcomes([]archive.Outcome{{Delivery: d.Seq, Items: 1, Kind: archive.Published, At: d.ReceivedAt,
				Fields: archive.Fields{OrderID: fmt.Sprintf("=order-%d", i%7), AmountMinor: &minor, Currency: "EUR"}}}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		go func() { _ = a.Append(d) }()
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, err := archive.ReadStat(dir)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", s, err)
		}
		if s.Deliveries == n {
			break
		}
	}
	if code := w.run(t.Context(), "archive", "export", dir, "--format", "csv", "--order-id", "=order-3", "--quiet"); code != exitOK {
		t.Fatalf("exit %d: %s", code, w.err.String())
	}
	lines, err := csv.NewReader(&w.out).ReadAll()
	if err != nil || len(lines) != 4 || lines[1][12] != "'=order-3" || lines[1][19] != "-3" || lines[0][19] != "amount_minor" {
		t.Fatalf("%v, %v", lines, err)
	}
	file := filepath.Join(t.TempDir(), "rows.parquet")
	w.want(exitOK, "", "archive", "export", dir, "--format", "parquet", "--out", file)
	if !strings.Contains(w.err.String(), "3000 deliveries") {
		t.Errorf("standard error: %s", w.err.String())
	}
	rows, err := parquet.ReadFile[parquetRow](file)
	if err != nil || len(rows) != n {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if r := rows[3]; r.OrderID != "=order-3" || *r.AmountMinor != -3 || r.Outcome != "published" || !r.ReceivedAt.Equal(time.Date(2026, 5, 28, 20, 0, 3, 3000, time.UTC)) || r.Livemode != nil {
		t.Errorf("%+v", r)
	}
	if r := rows[n-1]; r.AmountMinor != nil || r.Outcome != "" || r.Size != 4 {
		t.Errorf("%+v", r)
	}
	w.want(exitUsage, "exists", "archive", "export", dir, "--format", "csv", "--out", file)
	w.want(exitUsage, "none of ndjson", "archive", "export", dir, "--format", "xml")
	w.want(exitUsage, "--outcomes goes with", "archive", "export", dir, "--outcomes", "--order-id", "x")
	w.want(exitUsage, "--outcomes goes with", "archive", "export", dir, "--outcomes", "--format", "csv")
	w.want(exitOK, "", "archive", "export", dir, "--limit", "5", "--quiet", "--text", "BODY")
	if got := strings.Count(w.out.String(), "\n"); got != 5 {
		t.Errorf("%d lines, want 5", got)
	}
}

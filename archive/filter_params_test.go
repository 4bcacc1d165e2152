package archive

import (
	"net/url"
	"testing"
	"time"
)

// Times are read as pages show them and people type them; a day that ends a range is whole.
func TestTimesAsPeopleWriteThem(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	for text, want := range map[string][2]string{
		"2026-05-28T20:00:00Z":      {"2026-05-28T20:00:00Z"},
		"2026-05-28T20:00:00+03:00": {"2026-05-28T17:00:00Z"},
		"2026-05-28T20:00:00 03:00": {"2026-05-28T17:00:00Z"}, // a plus that was not escaped
		"2026-05-28 20:00:01.234":   {"2026-05-28T20:00:01.234Z"},
		"2026-05-28 20:00:01":       {"2026-05-28T20:00:01Z"},
		"2026-05-28 20:00":          {"2026-05-28T20:00:00Z"},
		"2026-05-28T20:00":          {"2026-05-28T20:00:00Z"},
		"2026-05-28":                {"2026-05-28T00:00:00Z", "2026-05-29T00:00:00Z"},
		"-2h":                       {"2026-11-22T01:00:00Z"},
		"-7d":                       {"2026-11-15T03:00:00Z"},
	} {
		if want[1] == "" {
			want[1] = want[0]
		}
		from, err := ParseFilter(url.Values{"from": {text}}, now)
		to, err2 := ParseFilter(url.Values{"to": {text}}, now)
		if err != nil || err2 != nil {
			t.Errorf("%s: %v, %v", text, err, err2)
			continue
		}
		if got := [2]string{from.From.UTC().Format(time.RFC3339Nano), to.To.UTC().Format(time.RFC3339Nano)}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"yesterday", "1h", "--2h", "-7x", "28.05.2026", "2026-05", "2026-02-30", "20:00", "2026-05-28 8 pm"} {
		if f, err := ParseFilter(url.Values{"from": {text}}, now); err == nil {
			t.Errorf("%s is read as %v", text, f.From)
		}
	}
	if f, err := ParseFilter(url.Values{"from": {"2026-05-28"}, "to": {"2026-05-28"}}, now); err != nil || f.To.Sub(f.From) != 24*time.Hour {
		t.Errorf("one day: %v to %v, %v", f.From, f.To, err)
	}
}

// What Params writes, ParseFilter reads back.
func TestFilterParams(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	v := url.Values{"from": {"2026-05-28T20:00:00Z"}, "to": {"2026-05-28T21:00:00.5Z"}, "livemode": {"false"}, "verdict": {"rejected"}, "outcome": {"dead"}}
	for name := range (&Filter{}).words() {
		v.Set(name, "x & "+name)
	}
	f, err := ParseFilter(v, now)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Params().Encode(); got != v.Encode() {
		t.Errorf("%s\nwant\n%s", got, v.Encode())
	}
	if got := (&Filter{Limit: 5, Cursor: "c"}).Params().Encode(); got != "" {
		t.Errorf("a filter that chooses nothing: %s", got)
	}
}

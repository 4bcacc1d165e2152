package archive

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// plainTimes are times as pages show them and people type them, in UTC.
var plainTimes = [...]string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04"} // fractions of a second are read by themselves

// parseTime reads RFC 3339, the same without a zone (UTC) and as short as a day, or an age:
// -2h, -90s, -7d. A day as the end of a range is meant whole.
func parseTime(s string, now time.Time, end bool) (time.Time, error) {
	if strings.HasPrefix(s, "-") {
		age := s[1:]
		if days, ok := strings.CutSuffix(age, "d"); ok {
			n, err := strconv.ParseUint(days, 10, 16)
			if err != nil {
				return time.Time{}, fmt.Errorf("%q is not an age like -2h or -7d", s)
			}
			return now.Add(-time.Duration(n) * 24 * time.Hour), nil
		}
		d, err := time.ParseDuration(age)
		if err != nil || d < 0 {
			return time.Time{}, fmt.Errorf("%q is not an age like -2h or -7d", s)
		}
		return now.Add(-d), nil
	}
	// A "+" of the zone that was not escaped arrives as a blank.
	if t, err := time.Parse(time.RFC3339Nano, strings.Replace(s, " ", "+", 1)); err == nil {
		return t, nil
	}
	for _, form := range plainTimes {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		if end {
			t = t.AddDate(0, 0, 1)
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is neither RFC 3339, nor 2026-05-28 20:00 (UTC), nor an age like -2h", s)
}

// Params gives the parameters that ParseFilter reads this filter from; limit and cursor, which
// choose nothing, are left out. Ages have become times.
func (f *Filter) Params() url.Values {
	v := url.Values{}
	for name, p := range f.words() {
		if *p != "" {
			v.Set(name, *p)
		}
	}
	for name, value := range map[string]string{"verdict": f.Verdict, "outcome": f.Outcome} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if f.Livemode != nil {
		v.Set("livemode", strconv.FormatBool(*f.Livemode))
	}
	for name, t := range map[string]time.Time{"from": f.From, "to": f.To} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	return v
}

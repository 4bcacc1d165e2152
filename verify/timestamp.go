package verify

import (
	"time"

	"penstock/provider"
)

// tsReader reads the signed time.
type tsReader struct {
	t       provider.Timestamp
	headers []string
}

// readTimestamp finds the timestamp's text (a list's own was read with the signature) and
// the message id, which are signed as they stand.
func (v *Verifier) readTimestamp(r *provider.Request, sc *scratch) string {
	if v.s.ID != nil {
		id, n := r.Header.Get(v.s.ID.Header)
		if reason := checkID(id, n, v.s.ID.Forbid); reason != "" {
			return reason
		}
		sc.id = id
	}
	if v.ts == nil {
		return ""
	}
	if v.ts.t.Key == "" && !v.ts.t.First {
		text, reason := v.timestampText(r, sc)
		if reason != "" {
			return reason
		}
		sc.ts = text
	}
	if len(sc.ts) == 0 {
		return TimestampMissing
	}
	if _, ok := parseTime(sc.ts, v.ts.t.Unit); !ok {
		return SignatureMalformed
	}
	return ""
}

func checkID(id []byte, n int, forbid string) string {
	switch {
	case n > 1:
		return DuplicateHeader
	case len(id) == 0:
		return SignatureMissing
	case len(id) > 256:
		return SignatureMalformed
	}
	for i := 0; i < len(id); i++ {
		if indexByte(forbid, id[i]) >= 0 {
			return SignatureMalformed
		}
	}
	return ""
}

func (v *Verifier) timestampText(r *provider.Request, sc *scratch) ([]byte, string) {
	t := &v.ts.t
	switch {
	case t.Header != "":
		var text []byte
		count := 0
		for _, h := range v.ts.headers {
			val, n := r.Header.Get(h)
			if n > 0 && text == nil {
				text = val
			}
			count += n
		}
		if count > 1 {
			return nil, DuplicateHeader
		}
		return text, ""
	case t.Query != "":
		pairs, ok := sc.loadQuery(r)
		if !ok {
			return nil, SignatureMalformed
		}
		val, n := find(pairs, t.Query)
		if n > 1 {
			return nil, SignatureMalformed
		}
		return val, ""
	}
	if !v.load(r, sc) {
		return nil, TimestampMissing
	}
	path := t.JSON
	if path == "" {
		path = t.Form
	}
	val, f := sc.lookup(path)
	if f == foundDuplicate || f == foundOther {
		return nil, SignatureMalformed
	}
	return val, ""
}

// check holds a timestamp against our clock in both directions.
func (t *tsReader) check(text []byte, now time.Time, tolerance time.Duration) string {
	at, ok := parseTime(text, t.t.Unit)
	if !ok {
		return SignatureMalformed
	}
	if t.t.PastOnly && at.After(now) {
		return ""
	}
	if t.t.Exclusive {
		tolerance -= time.Nanosecond
	}
	return within(at, now, tolerance)
}

func within(at, now time.Time, tolerance time.Duration) string {
	if d := now.Sub(at); d > tolerance || d < -tolerance {
		return TimestampOutsideTolerance
	}
	return ""
}

// parseTime is exact: ASCII digits only for numbers (no sign, no blank, no exponent, at
// most 15 of them), one layout each for the others.
func parseTime(text []byte, unit string) (time.Time, bool) {
	switch unit {
	case "rfc3339":
		if len(text) < len("2006-01-02T15:04:05Z") || len(text) > 40 {
			return time.Time{}, false
		}
		t, err := time.Parse(time.RFC3339Nano, string(text))
		return t, err == nil
	case "http_date":
		t, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", string(text))
		return t, err == nil
	}
	n, ok := digits(text)
	if !ok {
		return time.Time{}, false
	}
	if unit == "ms" || unit == "s_or_ms" && n >= 1e11 {
		return time.UnixMilli(n), true
	}
	if n >= 1e12 { // no seconds of a time that anybody's clock shows
		return time.Unix(1e12, 0), true
	}
	return time.Unix(n, 0), true
}

// digits reads an unsigned decimal number of at most 15 digits.
func digits(text []byte) (int64, bool) {
	if len(text) == 0 || len(text) > 15 {
		return 0, false
	}
	var n int64
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

package provider

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/valyala/fastjson"
)

func (c *reading) hold(cs conditions, typ, status string) bool {
	for i := range cs {
		if !c.holds(&cs[i], typ, status) {
			return false
		}
	}
	return true
}

func (c *reading) holds(cond *condition, typ, status string) bool {
	var b []byte
	word, there := "", false
	switch cond.word {
	case "type":
		word, there = typ, typ != ""
	case "status":
		word, there = status, status != ""
	default:
		b = c.at(&cond.ref)
		word, there = string(b), len(b) > 0
		if !there && cond.ref.root <= rootParent {
			if raw, ok := c.token(&cond.ref); ok {
				there = fullToken(raw)
			} else {
				there = full(c.node(&cond.ref))
			}
		}
	}
	if there && cond.unsigned {
		c.typeOpen = true
	}
	m := &cond.match
	if m.Present != nil && *m.Present != there {
		return false
	}
	if len(m.Is) > 0 && !c.d.fits(m.Is, word) || len(m.Not) > 0 && c.d.fits(m.Not, word) {
		return false
	}
	if m.Above != "" && (word == "" || !textLess([]byte(m.Above), []byte(word))) {
		return false
	}
	if m.Below != "" && (word == "" || !textLess([]byte(word), []byte(m.Below))) {
		return false
	}
	if !m.Differs.IsZero() {
		if o := c.at(&m.Differs); len(o) == 0 || string(o) == word {
			return false
		}
	}
	return true
}

// full says that an object or array is there and has something in it.
func full(v *fastjson.Value) bool {
	if v == nil {
		return false
	}
	switch v.Type() {
	case fastjson.TypeObject:
		o, err := v.Object()
		return err == nil && o.Len() > 0
	case fastjson.TypeArray:
		a, err := v.Array()
		return err == nil && len(a) > 0
	}
	return false
}

// textLess compares numbers as numbers, everything else as text (dates, versions).
func textLess(a, b []byte) bool {
	x, ok1 := parseDecimal(a)
	y, ok2 := parseDecimal(b)
	if ok1 && ok2 {
		return x.less(y)
	}
	return bytes.Compare(a, b) < 0
}

// currencyOf reads a currency: of the amount where it names one, else the event's.
func (c *reading) currencyOf(v *Value) string {
	b := c.value(v)
	if len(b) == 3 {
		up := [3]byte{b[0] &^ 0x20, b[1] &^ 0x20, b[2] &^ 0x20}
		if i := activeCurrency(up); i >= 0 && letter(b[0]) && letter(b[1]) && letter(b[2]) {
			return currencies[i*7 : i*7+3]
		}
	}
	return currencyCode(string(b))
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// money reads an amount exactly. What cannot be said in the currency's minor units is no
// amount, and it is reported: nobody books a rounded sum.
func (c *reading) money(a *Amount, currency, name string) *Money {
	if a.Unit == "" {
		return nil
	}
	if !a.Currency.IsZero() {
		currency = c.currencyOf(&a.Currency)
	}
	b := c.value(&a.Path)
	if len(b) == 0 {
		return nil
	}
	if currency == "" {
		c.problem(name + " without a currency")
		return nil
	}
	m, err := c.exact(a, b, currency)
	if err != nil {
		c.problem(name + ": " + err.Error())
		return nil
	}
	if less := c.value(&a.Minus); len(less) > 0 {
		o, err := c.exact(a, less, currency)
		if err != nil {
			c.problem(name + ": " + err.Error())
			return nil
		}
		diff := m.Minor - o.Minor
		if (m.Minor < 0) != (o.Minor < 0) && (diff < 0) != (m.Minor < 0) {
			c.problem(name + " does not fit 64 bits")
			return nil
		}
		m.Minor = diff
	}
	if a.Absolute && m.Minor < 0 {
		m.Minor = -m.Minor
	}
	return &m
}

func (c *reading) exact(a *Amount, b []byte, currency string) (Money, error) {
	own, known := c.d.Exponents[currency]
	iso, isISO := currencyExponent(currency)
	if !isISO {
		if iso = own; !known {
			return Money{}, fmt.Errorf("%s has no known decimals", currency)
		}
	} else if !known {
		own = iso
	}
	shift := iso
	if a.Unit == "minor" {
		if a.Exponent != nil {
			own = *a.Exponent
		}
		shift = iso - own
	}
	if n, ok := plainInt(b); ok && shift == 0 {
		return Money{Minor: n, Currency: currency, Exponent: iso}, nil
	}
	n, ok := parseDecimal(b)
	if !ok {
		return Money{}, errors.New("no decimal number")
	}
	minor, ok := n.shifted(shift)
	if !ok {
		return Money{}, fmt.Errorf("no whole number of %s minor units in 64 bits", currency)
	}
	return Money{Minor: minor, Currency: currency, Exponent: iso}, nil
}

// Moments outside of these years are no moments of an event.
const (
	firstYear = 1990
	lastYear  = 2200
)

func (c *reading) moment(w *When, zone *time.Location) time.Time {
	b := c.value(&w.Path)
	if len(b) == 0 {
		return time.Time{}
	}
	t := parseMoment(b, w.Unit, zone)
	if y := t.Year(); y < firstYear || y > lastYear {
		c.problem("occurred_at is no moment")
		return time.Time{}
	}
	return t.UTC()
}

// magnitude tells seconds, milliseconds, micro- and nanoseconds apart: seconds reach
// 10^11 in the year 5138, milliseconds passed it in 1973.
func magnitude(n decimal) int {
	whole, ok := n.floored(0)
	switch {
	case !ok || whole < 100_000_000_000:
		return 0
	case whole < 100_000_000_000_000:
		return 3
	case whole < 100_000_000_000_000_000:
		return 6
	}
	return 9
}

func parseMoment(b []byte, unit string, zone *time.Location) time.Time {
	if n, ok := plainInt(b); ok && n < 100_000_000_000 && (unit == "s" || unit == "auto") {
		return time.Unix(n, 0)
	}
	n, isNumber := parseDecimal(b)
	places := 0
	switch unit {
	case "s":
	case "ms":
		places = 3
	case "us":
		places = 6
	case "auto":
		if !isNumber {
			unit = "rfc3339"
		}
		places = magnitude(n)
	}
	switch unit {
	case "s", "ms", "us", "auto":
		ns, ok := n.floored(9 - places)
		if !ok || !isNumber {
			return time.Time{}
		}
		return time.Unix(0, ns)
	case "rfc3339":
		t, err := time.Parse(time.RFC3339, string(b))
		if err != nil {
			return time.Time{}
		}
		return t
	}
	t, err := time.ParseInLocation(unit, string(b), zone)
	if err != nil {
		return time.Time{}
	}
	return t
}

// flag reads true, false, 1, 0.
func flag(b []byte) *bool {
	var v bool
	switch string(b) {
	case "true", "1", "True", "TRUE":
		v = true
	case "false", "0", "False", "FALSE":
	default:
		return nil
	}
	return &v
}

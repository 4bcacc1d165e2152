package provider

import (
	"math/big"
	"strconv"
	"testing"
	"time"
)

func TestAmounts(t *testing.T) {
	for _, c := range []struct {
		token, unit, currency string
		want                  int64
		ok                    bool
	}{
		{"1299.50", "major", "UAH", 129950, true}, {"0.01", "major", "UAH", 1, true}, {"100.5", "major", "EUR", 10050, true},
		{"1e2", "major", "EUR", 10000, true}, {"1.5E-1", "major", "EUR", 15, true}, {"5000", "major", "JPY", 5000, true},
		{"5000.00", "major", "JPY", 5000, true}, {"1.234", "major", "KWD", 1234, true}, {"1.2345", "major", "CLF", 12345, true},
		{"-10.00", "major", "EUR", -1000, true}, {"0.00", "major", "EUR", 0, true}, {"00012.30", "major", "EUR", 1230, true},
		{"9223372036854775807", "minor", "EUR", 9223372036854775807, true}, {"92233720368547758.07", "major", "EUR", 9223372036854775807, true},
		{"9007199254740993", "minor", "IDR", 9007199254740993, true},
		{"9223372036854775808", "minor", "EUR", 0, false}, {"92233720368547758.08", "major", "EUR", 0, false}, {"1e30", "major", "EUR", 0, false},
		{"10.005", "major", "EUR", 0, false}, {"0.5", "major", "JPY", 0, false}, {"12.5", "minor", "EUR", 0, false},
		{"1,50", "major", "EUR", 0, false}, {"", "major", "EUR", 0, false}, {"NaN", "major", "EUR", 0, false}, {"1.", "major", "EUR", 0, false},
		{".5", "major", "EUR", 0, false}, {"1e", "major", "EUR", 0, false}, {"--1", "major", "EUR", 0, false}, {"10", "minor", "XQZ", 0, false},
	} {
		r := reading{d: &Definition{}}
		got, err := r.exact(&Amount{Unit: c.unit}, []byte(c.token), c.currency)
		if (err == nil) != c.ok || got.Minor != c.want {
			t.Errorf("%q %s %s is %d (%v), want %d %v", c.token, c.unit, c.currency, got.Minor, err, c.want, c.ok)
		}
	}
}

// FuzzDecimal compares with exact rational arithmetic.
func FuzzDecimal(f *testing.F) {
	for _, s := range []string{"1", "-1.50", "1e3", "0.000", "92233720368547758.07", "12e-4"} {
		f.Add(s, 2)
	}
	f.Fuzz(func(t *testing.T, s string, places int) {
		places = (places%8 + 8) % 8
		d, ok := parseDecimal([]byte(s))
		want, isRat := new(big.Rat).SetString(s)
		if !ok {
			return
		}
		if !isRat {
			t.Fatalf("%q was read as a number", s)
		}
		back, short := parseDecimal(d.append(nil))
		if short && string(back.append(nil)) != string(d.append(nil)) {
			t.Fatalf("%q: canonical form %q is not stable", s, d.append(nil))
		}
		want.Mul(want, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(places)), nil)))
		n, whole := d.shifted(places)
		if whole != (want.IsInt() && want.Num().IsInt64() && want.Num().String() != "-9223372036854775808") {
			t.Fatalf("%q * 10^%d: %v, want %s", s, places, whole, want)
		}
		if whole && strconv.FormatInt(n, 10) != want.Num().String() {
			t.Fatalf("%q * 10^%d is %d, want %s", s, places, n, want.Num())
		}
	})
}

func TestCurrencies(t *testing.T) {
	for in, want := range map[string]string{"uah": "UAH", "980": "UAH", "36": "AUD", "EUR": "EUR", "": "", "a b": "", "532": "XCG", "btc": "BTC"} {
		if got := currencyCode(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	for code, want := range map[string]int{"UAH": 2, "JPY": 0, "KWD": 3, "UYW": 4, "AED": 2, "ZWG": 2, "HRK": 2, "ANG": 2, "XAF": 0} {
		if got, ok := currencyExponent(code); !ok || got != want {
			t.Errorf("%s has %d decimals (%v), want %d", code, got, ok, want)
		}
	}
	for _, code := range []string{"", "XXX", "AAA", "usd", "ZZZ", "EURO"} {
		if _, ok := currencyExponent(code); ok {
			t.Errorf("%q is a currency", code)
		}
	}
}

func TestMoments(t *testing.T) {
	want := time.Date(2026, 5, 28, 20, 26, 38, 456000000, time.UTC)
	kyiv, err := parseZone("+03:00")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text, unit string
		zone       *time.Location
		cut        time.Duration
	}{
		{"1779999998456", "ms", time.UTC, 0}, {"1779999998456", "auto", time.UTC, 0}, {"1779999998.456", "auto", time.UTC, 0},
		{"1779999998", "s", time.UTC, time.Second}, {"1779999998456000", "us", time.UTC, 0}, {"1779999998456000", "auto", time.UTC, 0},
		{"1779999998456000000", "auto", time.UTC, 0}, {"2026-05-28T22:26:38.456+02:00", "rfc3339", time.UTC, 0},
		{"2026-05-28T20:26:38.456Z", "auto", time.UTC, 0}, {"2026-05-28 20:26:38", "2006-01-02 15:04:05", time.UTC, time.Second},
		{"2026-05-28 23:26:38", "2006-01-02 15:04:05", kyiv, time.Second},
	} {
		got, w := parseMoment([]byte(c.text), c.unit, c.zone), want
		if c.cut > 0 {
			w = w.Truncate(c.cut)
		}
		if !got.Equal(w) {
			t.Errorf("%q as %s is %s, want %s", c.text, c.unit, got, w)
		}
	}
	for _, bad := range []string{"", "x", "1e99", "-5", "99999999999999999999"} {
		if got := parseMoment([]byte(bad), "s", time.UTC); got.Year() > firstYear && got.Year() < lastYear {
			t.Errorf("%q is %s", bad, got)
		}
	}
}

// TestOwnDecimals: what providers send in decimals of their own comes out in ISO 4217's.
func TestOwnDecimals(t *testing.T) {
	cat := builtins(t)
	adyen := `{"live":"true","notificationItems":[{"NotificationRequestItem":{"pspReference":"R","amount":{"currency":"#1","value":#2},"eventCode":"CAPTURE","success":"true"}}]}`
	stripe := `{"id":"e","type":"payment_intent.succeeded","data":{"object":{"id":"pi","currency":"#1","amount":#2,"amount_received":#2}}}`
	checkout := `{"id":"e","type":"payment_captured","data":{"id":"p","currency":"#1","amount":#2}}`
	for _, c := range []struct {
		name, template, currency, sent string
		minor                          int64
		exponent                       int
	}{
		{"stripe", stripe, "jpy", "500", 500, 0},
		{"stripe", stripe, "kwd", "5000", 5000, 3},
		{"stripe", stripe, "isk", "50000", 500, 0},
		{"stripe", stripe, "ugx", "50000", 500, 0},
		{"stripe", stripe, "huf", "50000", 50000, 2},
		{"stripe", stripe, "twd", "50000", 50000, 2},
		{"stripe", stripe, "mga", "500", 50000, 2},
		{"adyen", adyen, "ISK", "50000", 500, 0},
		{"adyen", adyen, "CLP", "50000", 500, 0},
		{"adyen", adyen, "IDR", "500", 50000, 2},
		{"adyen", adyen, "CVE", "500", 50000, 2},
		{"adyen", adyen, "KWD", "5000", 5000, 3},
		{"checkout_com", checkout, "CLP", "50000", 500, 0},
		{"checkout_com", checkout, "ISK", "500", 500, 0},
		{"checkout_com", checkout, "CLF", "5", 50000, 4},
		{"checkout_com", checkout, "TND", "5000", 5000, 3},
	} {
		d, _ := cat.Get(c.name)
		e := events(t, d, in(c.template, c.currency, c.sent))[0]
		if e.Amount == nil || e.Amount.Minor != c.minor || e.Amount.Exponent != c.exponent || e.NeedsFetch {
			t.Errorf("%s: %s %s is %+v, want %d with %d decimals", c.name, c.sent, c.currency, e.Amount, c.minor, c.exponent)
		}
	}
	// A part of a unit that the currency has not is no amount.
	d, _ := cat.Get("stripe")
	if e := events(t, d, in(stripe, "isk", "50001"))[0]; e.Amount != nil || !e.NeedsFetch {
		t.Errorf("hundredths of a krona are %+v", e.Amount)
	}
}

package provider

import "math"

// maxExponent bounds decimals: more than any currency has, and 10^18 fits an int64.
const maxExponent = 18

// maxNumber bounds a number's text; beyond it a sum is no sum.
const maxNumber = 64

// decimal is an exact number: digits without leading zeros, times 10^-scale.
type decimal struct {
	neg    bool
	digits []byte
	scale  int
}

// parseDecimal reads -12.50, 12, 1e3 strictly as JSON writes numbers (a leading zero or
// plus is let pass: forms have them). ok is false for anything else.
func parseDecimal(b []byte) (d decimal, ok bool) {
	if len(b) == 0 || len(b) > maxNumber {
		return d, false
	}
	i := 0
	if b[0] == '-' || b[0] == '+' {
		d.neg = b[0] == '-'
		i++
	}
	d.digits = make([]byte, 0, len(b))
	seen, point := 0, false
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case '0' <= c && c <= '9':
			seen++
			if point {
				d.scale++
			}
			if c != '0' || len(d.digits) > 0 {
				d.digits = append(d.digits, c)
			}
			continue
		case c == '.' && !point && seen > 0 && i+1 < len(b):
			point = true
			continue
		case (c == 'e' || c == 'E') && seen > 0:
			e, ok := parseExponent(b[i+1:])
			if !ok {
				return d, false
			}
			d.scale -= e
			return d.trimmed(), true
		}
		return d, false
	}
	return d.trimmed(), seen > 0 && b[len(b)-1] != '.'
}

// plainInt reads up to 18 digits and nothing else, which most amounts are.
func plainInt(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > maxExponent {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func parseExponent(b []byte) (int, bool) {
	neg := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		neg = b[0] == '-'
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 3 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	if neg {
		n = -n
	}
	return n, true
}

// trimmed drops trailing zeros, so that equal numbers are equal.
func (d decimal) trimmed() decimal {
	for n := len(d.digits); n > 0 && d.digits[n-1] == '0'; n-- {
		d.digits = d.digits[:n-1]
		d.scale--
	}
	if len(d.digits) == 0 {
		d.scale, d.neg = 0, false
	}
	return d
}

// shifted is the integer d * 10^places; ok is false when it is none or does not fit.
func (d decimal) shifted(places int) (n int64, ok bool) {
	zeros := places - d.scale
	if zeros < 0 || len(d.digits) > 0 && zeros > maxExponent {
		return 0, len(d.digits) == 0
	}
	for _, c := range d.digits {
		if n, ok = addDigit(n, int64(c-'0')); !ok {
			return 0, false
		}
	}
	for ; zeros > 0 && n > 0; zeros-- {
		if n, ok = addDigit(n, 0); !ok {
			return 0, false
		}
	}
	if d.neg {
		n = -n
	}
	return n, true
}

func addDigit(n, digit int64) (int64, bool) {
	if n > (math.MaxInt64-digit)/10 {
		return 0, false
	}
	return n*10 + digit, true
}

// append writes the canonical form: 250.00, 250 and 2.5e2 are all "250".
func (d decimal) append(dst []byte) []byte {
	if len(d.digits) == 0 {
		return append(dst, '0')
	}
	if d.neg {
		dst = append(dst, '-')
	}
	point := len(d.digits) - d.scale
	if point <= 0 {
		dst = append(dst, "0."...)
		for ; point < 0; point++ {
			dst = append(dst, '0')
		}
		return append(dst, d.digits...)
	}
	if point >= len(d.digits) {
		dst = append(dst, d.digits...)
		for i := len(d.digits); i < point; i++ {
			dst = append(dst, '0')
		}
		return dst
	}
	dst = append(dst, d.digits[:point]...)
	dst = append(dst, '.')
	return append(dst, d.digits[point:]...)
}

// less compares two numbers exactly.
func (d decimal) less(o decimal) bool {
	if d.neg != o.neg {
		return d.neg
	}
	c := compareDigits(d, o)
	if d.neg {
		return c > 0
	}
	return c < 0
}

func compareDigits(a, b decimal) int {
	pa, pb := len(a.digits)-a.scale, len(b.digits)-b.scale
	switch {
	case len(a.digits) == 0 || len(b.digits) == 0:
		return len(a.digits) - len(b.digits)
	case pa != pb:
		return pa - pb
	}
	for i := 0; i < len(a.digits) || i < len(b.digits); i++ {
		var x, y byte = '0', '0'
		if i < len(a.digits) {
			x = a.digits[i]
		}
		if i < len(b.digits) {
			y = b.digits[i]
		}
		if x != y {
			return int(x) - int(y)
		}
	}
	return 0
}

// floored is d * 10^places without what follows the point: for times, never for money.
func (d decimal) floored(places int) (int64, bool) {
	if cut := d.scale - places; cut > 0 {
		if cut >= len(d.digits) {
			return 0, true
		}
		d.digits, d.scale = d.digits[:len(d.digits)-cut], places
	}
	return d.shifted(places)
}

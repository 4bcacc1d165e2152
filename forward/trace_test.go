package forward

import (
	"strings"
	"testing"
)

func TestValidTrace(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	f := func(s string, want bool) {
		t.Helper()
		if got := validTrace(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
	f(good, true)
	f("cc"+good[2:]+"-what-the-future-brings", true)
	f("cc"+good[2:]+".x", false)
	f("cc"+good[2:]+"-\r\n", false)
	f(good+"-00", false)
	f("ff"+good[2:], false)
	f(strings.ToUpper(good), false)
	f(good[:54], false)
	f(strings.Replace(good, "b7ad6b7169203331", "0000000000000000", 1), false)
	f(strings.Replace(good, "0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000", 1), false)
	f(strings.Replace(good, "-b7", "_b7", 1), false)
	f("cc"+good[2:]+"-"+strings.Repeat("a", 200), false)
	f("", false)
}

package admin

import (
	"fmt"
	"testing"
	"time"

	"penstock/archive"
)

// fakeEraser knows one key.
type fakeEraser struct{ asked []string }

func (f *fakeEraser) EraseKey(source, month string) (before time.Time, err error) {
	f.asked = append(f.asked, source+" "+month)
	switch {
	case source == "plain":
		return before, archive.ErrNotEncrypted
	case source != "stripe":
		return before, archive.ErrNotFound
	case month != "2025-02":
		return before, fmt.Errorf("%w: it is not over", archive.ErrMonth)
	case len(f.asked) > 1:
		return time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC), nil
	}
	return before, nil
}

func TestEraseKey(t *testing.T) {
	e := &fakeEraser{}
	w := newWorld(t, func(o *Options) { o.Eraser = e })
	const path = "/api/v1/sources/stripe/keys/2025-02"
	w.want(w.call("DELETE", path, viewerToken, ""), 403)
	w.want(w.call("DELETE", path, "", ""), 401)
	if len(e.asked) > 0 {
		t.Fatalf("done for who may not: %q", e.asked)
	}
	w.want(w.call("DELETE", path, operatorToken, ""), 200, `"erased":true`)
	w.want(w.call("DELETE", path, operatorToken, ""), 200, `"before":"2025-03-04T05:06:07Z"`)
	w.want(w.call("DELETE", "/api/v1/sources/stripe/keys/2099-02", operatorToken, ""), 400, "not over")
	w.want(w.call("DELETE", "/api/v1/sources/nobody/keys/2025-02", operatorToken, ""), 404)
	w.want(w.call("DELETE", "/api/v1/sources/plain/keys/2025-02", operatorToken, ""), 409, "not encrypted")
}

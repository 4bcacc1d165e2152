package ingest

import (
	"bufio"
	"bytes"
	"net/http"
	"testing"
)

// FuzzFrame: a block that is let through reads the same to net/http; and a path that is let
// through is one that nobody resolves to another.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{"A: b\r\n\r\n", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "A: b\n\r\n", " A: b\r\n\r\n", "A\r\n\r\n", "Expect: 100-continue\r\n\r\n", "transfer-encoding: identity\r\n\r\n", "\r\n", "A: b\r\n\r\nC: d\r\n\r\n", ""} {
		f.Add([]byte(s), []byte("/in/a/../b?c"))
	}
	f.Fuzz(func(t *testing.T, block, target []byte) {
		before := bytes.Clone(block)
		fr := scanFrame(block)
		lines := headerLines(block)
		if !bytes.Equal(before, block) || len(lines) > len(block) {
			t.Fatal("wrote into the block, or beyond it")
		}
		path := splitPath(target)
		if bytes.ContainsRune(path, '?') || !bytes.HasPrefix(target, path) {
			t.Fatalf("%q of %q", path, target)
		}
		if !badPath(path) && (bytes.Contains(path, []byte("//")) || bytes.Contains(path, []byte("/../")) || bytes.Contains(path, []byte("/./")) || bytes.ContainsAny(path, "%\\#")) {
			t.Fatalf("path %q is let through", path)
		}
		if fr.bad || !bytes.HasSuffix(block, []byte("\r\n\r\n")) && !bytes.Equal(block, []byte("\r\n")) {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append([]byte("POST / HTTP/1.1\r\nHost: a\r\n"), block...))))
		if err != nil {
			return // stricter than we are: fasthttp has looked at the block before
		}
		if chunked := len(r.TransferEncoding) > 0; chunked != fr.chunked || !chunked && r.ContentLength > 0 && !fr.length {
			t.Fatalf("%q: %+v, net/http: %v, %d", block, fr, r.TransferEncoding, r.ContentLength)
		}
	})
}

package provider

import (
	"reflect"
	"strings"
	"testing"
)

// TestCaptureReadsAsTheTree: every sample of every provider, and what can be made of it
// by spoiling, gives the same events by its slots as by its tree.
func TestCaptureReadsAsTheTree(t *testing.T) {
	c := builtins(t)
	captured, all := 0, 0
	for _, name := range c.Names() {
		d, _ := c.Get(name)
		byTree := *d
		prog := *d.prog
		prog.slots = nil
		byTree.prog = &prog
		for _, info := range d.SampleTypes() {
			r, err := d.Sample(info.Type, SampleParams{OrderID: "ORD-1", Now: sampleNow})
			if err != nil {
				t.Fatal(err)
			}
			for _, body := range spoiled(r.Body) {
				q := *r
				q.Body = body
				want, wantErr := byTree.Events(&q)
				got, err := d.Events(&q)
				if !reflect.DeepEqual(got, want) || (err == nil) != (wantErr == nil) {
					t.Fatalf("%s %s:\n%s\nby slots %+v %v\nby tree  %+v %v", name, info.Type, body, got, err, want, wantErr)
				}
				all++
				if seesCaptured(d, &q) {
					captured++
				}
			}
		}
	}
	t.Logf("%d of %d documents were read by their slots", captured, all)
	if captured < all/4 {
		t.Errorf("only %d of %d documents were read by their slots", captured, all)
	}
}

func seesCaptured(d *Definition, r *Request) bool {
	var c reading
	c.reset(d, r)
	c.open()
	return c.captured
}

// spoiled are variants of a body: other values, escapes, members that stand twice, first
// or last, broken ends.
func spoiled(b []byte) [][]byte {
	out := [][]byte{b}
	if len(b) == 0 || b[0] != '{' {
		return out
	}
	for _, pair := range [][2]string{
		{`"`, `"\u0041`}, {`":`, `" : `}, {`": "`, `": "\u00e9\n`}, {`": "`, `":{"a":"`}, {`true`, `null`}, {`: `, `:null,"x":`},
		{`{`, `{"x":{},`}, {`":`, `":[],"y":`}, {`e`, `\u0065`}, {`0`, `1e2`}, {`null`, `{}`}, {`null`, `[ ]`}, {`null`, `[{"a":1}]`},
		{`"`, "\"\xff"}, {`}`, `},`}, {`":`, `":-`},
	} {
		for _, n := range []int{1, 2, 3, 5, 8, 13, -1} {
			out = append(out, []byte(replaceNth(string(b), pair[0], pair[1], n)))
		}
	}
	inner := strings.TrimSuffix(strings.TrimSpace(string(b)), "}")
	out = append(out, []byte(inner+","+strings.TrimPrefix(strings.TrimSpace(string(b)), "{")), []byte(inner+`,"id":"again","data":{"object":{"status":"x"}}}`))
	return out
}

// replaceNth replaces the n-th old, all for -1.
func replaceNth(s, from, to string, n int) string {
	if n < 0 {
		return strings.ReplaceAll(s, from, to)
	}
	at := 0
	for range n {
		i := strings.Index(s[at:], from)
		if i < 0 {
			return s
		}
		at += i + len(from)
	}
	return s[:at-len(from)] + to + s[at:]
}

// TestCaptureLeavesTwins: of a name that stands twice the tree takes the first, whoever
// else is warned of it; so it is the tree's to read.
func TestCaptureLeavesTwins(t *testing.T) {
	d, r := stripe1K(t)
	if !seesCaptured(d, r) {
		t.Fatal("a plain stripe delivery is not read by its slots")
	}
	for _, extra := range []string{`"api_version":"2020-01-01",`, `"id":"evt_other",`} {
		q := *r
		q.Body = []byte("{" + extra + strings.TrimPrefix(string(r.Body), "{"))
		if seesCaptured(d, &q) {
			t.Errorf("a delivery with a second %s is read by its slots", extra)
		}
	}
}

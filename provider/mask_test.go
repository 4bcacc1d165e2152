package provider

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestMaskPANs(t *testing.T) {
	for in, want := range map[string]string{
		"4111111111111111":                  "411111******1111",
		"card 4111 1111 1111 1111, thanks":  "card 4111 11** **** 1111, thanks",
		"4111-1111-1111-1111 12/29":         "4111-11**-****-1111 12/29",
		"4111111111111111 123":              "411111******1111 123",
		"378282246310005":                   "378282*****0005",
		"5555555555554444;2223003122003222": "555555******4444;222300******3222",
		"6759649826438453":                  "675964******8453",
		"(4111111111111111)":                "(411111******1111)",
	} {
		got, ok := maskPANs([]byte(in))
		if !ok || string(got) != want || !maybePAN([]byte(in)) {
			t.Errorf("%q becomes %q (%v), want %q", in, got, ok, want)
		}
	}
	for _, in := range []string{
		"4111111111111112",                   // Luhn fails
		"82098284578000003", "5847362934894", // ids of shops, all of them pass Luhn
		"1779999998456", "1779999998469", // clocks in ms, the second satisfies Luhn
		"411111******1111", "41****8217", "535528*78", // masked already
		"pi_4111111111111111", "a4111111111111111", "4111111111111111f", // part of a word
		"0.4111111111111111", "41111111111111110000000", "380501234567",
	} {
		if got, ok := maskPANs([]byte(in)); ok {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// TestMayHide: what spares a text the walk never overlooks what the walk would find.
func TestMayHide(t *testing.T) {
	for _, plain := range []string{`{"at":1779999998469}`, `{"id":"evt_12345678901234567890"}`, "{\n              \"a\": 1}", `{"a":"4111111111111112"}`, `{}`, ``} {
		if mayHide([]byte(plain)) {
			t.Errorf("%s is walked", plain)
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	parts := []string{"4111111111111111", "4111 1111 1111 1111", "378282246310005", "4111-1111-1111-1111", "1779999998469", "12", "a", "_", ".", " ", "-", ",", "é", `\u0034`, `\n`, `\"`}
	found := 0
	for range 20_000 {
		text := []byte(`{"k":`)
		for range rng.IntN(3) {
			text = append(text, strings.Repeat("    1,", rng.IntN(3))...)
			text = append(text, '"')
			for range rng.IntN(5) {
				text = append(text, parts[rng.IntN(len(parts))]...)
			}
			text = append(text, `",`...)
		}
		text = append(text, parts[rng.IntN(5)]...)
		text = append(text, '}')
		hit := false
		for rest := text; len(rest) > 0; { // what stands between quotes or commas is a token
			i := bytes.IndexAny(rest, `,"}`)
			if i < 0 {
				break
			}
			_, ok := maskPANs(rest[:i])
			hit, rest = hit || ok, rest[i+1:]
		}
		if hit {
			found++
		}
		if hit && !mayHide(text) {
			t.Fatalf("a card number in %s is overlooked", text)
		}
	}
	if found < 1000 {
		t.Errorf("only %d of the texts held a card number", found)
	}
}

// TestHostileDigits: the search is linear whatever the text; quadratic, these megabytes
// would take hours.
func TestHostileDigits(t *testing.T) {
	for _, unit := range []string{"1", "1 ", "4111-", "4 ", "\\u0034", "\\\\", "\\\""} {
		b := []byte(strings.Repeat(unit, (1<<20)/len(unit)))
		maskPANs(b)
		d, _ := builtins(t).Get("stripe")
		_, _ = d.Events(&Request{Body: append(append([]byte(`{"id":"`), b...), `"}`...)})
		_, _ = d.Events(&Request{Body: append(append([]byte(`{"id":"1","id":"1"`), bytes.Repeat([]byte(`,"id":"1"`), 1<<17)...), '}')})
	}
}

// TestPayload: the body's own bytes, but for what must not leave.
func TestPayload(t *testing.T) {
	d := parse(t, "name: x\nscheme: hmac\nalgorithm: sha256\nsigned: '{body}'\nsignature: {header: S, encoding: hex}\nevent: {id: id, order_id: note, card_mask: pan}\nsecret_fields: [auth.token, list.*.key]\n")
	plain := "{ \"id\" : \"a\\/b\",\r\n \"n\": 1.0, \"u\":\"\\u00e9<&>\" }\n"
	e := events(t, d, plain)[0]
	if string(e.Payload) != plain || !e.PayloadJSON || e.Masked != nil || e.ID != "a/b" {
		t.Errorf("changed: %q %v", e.Payload, e.Masked)
	}
	body := `{"id":"1","pan":"4111111111111111", "num":4111111111111111 ,"shop_id":39463130333250,"note":"pay 4111 1111 1111 1111","esc":"\u0034111111111111111","auth":{"token":{"a":[1,"]"]},"x":1},"list":[{"key":"k1"},{"key":null,"k":"4111111111111111"}]}`
	want := `{"id":"1","pan":"411111******1111", "num":"411111******1111" ,"shop_id":39463130333250,"note":"pay 4111 11** **** 1111","esc":"411111******1111","auth":{"token":"[redacted]","x":1},"list":[{"key":"[redacted]"},{"key":null,"k":"411111******1111"}]}`
	e = events(t, d, body)[0]
	if string(e.Payload) != want {
		t.Errorf("payload\n%s, want\n%s", e.Payload, want)
	}
	if paths := []string{"pan", "num", "note", "esc", "auth.token", "list.0.key", "list.1.k"}; !slices.Equal(e.Masked, paths) {
		t.Errorf("masked %q", e.Masked)
	}
	if e.CardMask != "411111******1111" || strings.Contains(e.OrderID, "1111 1111") {
		t.Errorf("card %q order %q", e.CardMask, e.OrderID)
	}
	if e = events(t, d, `{"id":"4111111111111111"}`)[0]; strings.Contains(e.CEID, "4111111111111111") || strings.Contains(e.ID, "4111111111111111") {
		t.Errorf("a card number in the ids: %q %q", e.ID, e.CEID)
	}
	for _, loose := range []string{"{\"id\":\"a\x01\"}", "{\"id\":01}", "{\"id\":\"\xff\"}"} {
		e := events(t, d, loose)[0]
		if e.PayloadJSON && !json.Valid(e.Payload) || strings.Contains(e.ID, "\xff") {
			t.Errorf("%q went out as JSON: %q", loose, e.Payload)
		}
	}
	for _, no := range []string{"", "not json", "{", `{"a":}`, strings.Repeat("[", 500) + strings.Repeat("]", 500)} {
		wantUnread(t, d, no)
	}
}

// TestRequestUntouched: what is archived and what is read are the same bytes.
func TestRequestUntouched(t *testing.T) {
	cat := builtins(t)
	for _, name := range cat.Names() {
		d, _ := cat.Get(name)
		for _, s := range d.SampleTypes() {
			r, _ := d.Sample(s.Type, SampleParams{})
			body, header := bytes.Clone(r.Body), bytes.Clone(r.Header)
			evs, err := d.Events(r)
			if err != nil {
				t.Fatal(err)
			}
			// Another reading must not reach into the first one's events.
			before, _ := json.Marshal(evs)
			for i := 0; i < 3; i++ {
				o, _ := d.Sample("", SampleParams{OrderID: "OTHER", EventID: "999999999999999999"})
				_, _ = d.Events(o)
			}
			after, _ := json.Marshal(evs)
			if !bytes.Equal(body, r.Body) || !bytes.Equal(header, r.Header) || !bytes.Equal(before, after) {
				t.Errorf("%s %s: bytes changed", name, s.Type)
			}
		}
	}
}

func TestForms(t *testing.T) {
	d := parse(t, "name: x\nscheme: none\ndocument: [form]\nevent: {id: id, order_id: name}\ncanonical: [{type: \"*\", is: provider}]\n")
	e := events(t, d, "name=a+b%2B%C3%A9&x=%22%5C%0A&id=1&x=2&flag&=e")[0]
	if e.OrderID != "a b+é" || string(e.Payload) != `{"name":"a b+é","x":"\"\\\n","id":"1","x#2":"2","flag":"","":"e"}` {
		t.Errorf("%q %s", e.OrderID, e.Payload)
	}
	if e = events(t, d, "id=1&id=2")[0]; !e.NeedsFetch || len(e.Problems) != 1 || e.ID != "1" {
		t.Errorf("a field that stands twice: %+v", e)
	}
	wantUnread(t, d, "id=%zz")
	q := parse(t, "name: x\nscheme: none\nevent: {id: id, order_id: \"query:o\"}\n")
	evs, err := q.Events(&Request{Method: "GET", Target: []byte("/in/x?id=7&o=8")})
	if err != nil || evs[0].ID != "7" || evs[0].OrderID != "8" {
		t.Errorf("%v %+v", err, evs)
	}
	x := parse(t, "name: x\nscheme: none\ndocument: [xml]\nevent: {id: n.item.1.@id, order_id: n.order}\n")
	e = events(t, x, `<?xml version="1.0"?><n a="1"><order>O &amp; 1</order><item id="5"/><item id="6">t</item></n>`)[0]
	if e.ID != "6" || e.OrderID != "O & 1" || e.PayloadJSON {
		t.Errorf("xml: %+v", e)
	}
	wantUnread(t, x, `<!DOCTYPE n [<!ENTITY a "b">]><n>&a;</n>`)
	m := parse(t, "name: x\nscheme: none\ndocument: [multipart]\nevent: {id: id}\n")
	e = events(t, m, "--b\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\n42\r\n--b--\r\n", [2]string{"Content-Type", "multipart/form-data; boundary=b"})[0]
	if e.ID != "42" || string(e.Payload) != `{"id":"42"}` {
		t.Errorf("multipart: %+v", e)
	}
}

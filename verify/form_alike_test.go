package verify

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"penstock/provider"
)

// TestFormReadAlike: what is verified and what is read are the same fields. The verifier
// decodes a form without allocating, provider decodes it for the event; they are two
// pieces of code, so they are held to each other. (class 9)
func TestFormReadAlike(t *testing.T) {
	d, err := provider.Parse("form", []byte("name: form\nscheme: none\ndocument: [form]\nevent: {id: id}\n"))
	if err != nil {
		t.Fatal(err)
	}
	pieces := []string{"a", "b", "id", "=", "=", "&", "&", "+", "%2B", "%26", "%3d", "%41", "%25", "%", "%4", "%zz", "%20", " ", "\"", "\\", "/"}
	rng := rand.New(rand.NewPCG(1, 2))
	compared := 0
	for range 20_000 {
		var body []byte
		for range 1 + rng.IntN(12) {
			body = append(body, pieces[rng.IntN(len(pieces))]...)
		}
		pairs, _, err := parseForm(body, nil, nil)
		events, eventsErr := d.Events(&provider.Request{Body: body})
		if eventsErr != nil || len(events) != 1 {
			t.Fatalf("%q: %d events, %v", body, len(events), eventsErr)
		}
		read := map[string]string{}
		isForm := events[0].PayloadJSON && json.Unmarshal(events[0].Payload, &read) == nil
		if err != nil {
			if isForm {
				t.Fatalf("%q is no form to the verifier and %v to the event", body, read)
			}
			continue
		}
		verified := map[string]string{}
		for _, p := range pairs {
			verified[string(p.name)] = string(p.value)
		}
		if len(verified) != len(pairs) || len(pairs) == 0 {
			continue // a name that comes twice is refused or marked; that has tests of its own
		}
		if !isForm && bytes.IndexByte(body, '=') < 0 {
			continue // bare words are no document to the event, which then goes out as bytes
		}
		if !utf8.Valid(events[0].Payload) || strings.ContainsRune(string(events[0].Payload), utf8.RuneError) {
			continue // JSON has no place for other bytes than UTF-8
		}
		compared++
		if len(read) != len(verified) {
			t.Fatalf("%q: verified %v, read %v", body, verified, read)
		}
		for name, value := range verified {
			if read[name] != value {
				t.Fatalf("%q: %q was verified as %q and read as %q in %s", body, name, value, read[name], events[0].Payload)
			}
		}
	}
	if compared < 1000 {
		t.Errorf("only %d forms were compared", compared)
	}
}

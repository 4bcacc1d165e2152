package provider

import (
	"testing"
	"time"
)

// TestUnsignedIdentity: fields that nothing proves tell events apart only together with
// the hash of what is signed, and no other way of naming them loads.
func TestUnsignedIdentity(t *testing.T) {
	d := parse(t, head+"document: [none]\nevent: {id: \"header:N\", type: \"header:T\"}\nidentity: {with_content: [\"header:C\", \"header:N\"]}\n")
	ceid := func(channel, number, body string) string {
		t.Helper()
		evs, err := d.Events(&Request{Method: "POST", Header: MakeHeader([][2]string{{"C", channel}, {"N", number}, {"T", "update"}}), Body: []byte(body)})
		if err != nil || len(evs) != 1 || evs[0].ID != number {
			t.Fatalf("%v %+v", err, evs)
		}
		return evs[0].CEID
	}
	seen := map[string]string{}
	for _, c := range [][3]string{{"a", "1", ""}, {"b", "1", ""}, {"a", "2", ""}, {"a", "1", "x"}, {"a1", "", ""}} {
		if c[1] == "" {
			continue
		}
		id := ceid(c[0], c[1], c[2])
		if old, ok := seen[id]; ok {
			t.Errorf("%v and %s are one event", c, old)
		}
		seen[id] = c[0] + c[1] + c[2]
		if again := ceid(c[0], c[1], c[2]); again != id {
			t.Errorf("%v: %s and %s", c, id, again)
		}
	}
	for _, bad := range []string{"identity: [\"header:C\"]", "identity: {with_content: []}", "identity: {with: [\"header:C\"]}"} {
		if _, err := Parse("f.yaml", []byte(head+"event: {id: \"header:N\"}\n"+bad+"\n")); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// TestReceivedIdentity: what says the same every time is an event every time, for each of
// its items, and the same one whenever the archive is read again.
func TestReceivedIdentity(t *testing.T) {
	d := parse(t, head+"items: [\"list.*\"]\nevent: {id: id}\nidentity: received\n")
	read := func(at time.Time) (ids []string) {
		t.Helper()
		evs, err := d.Events(&Request{Method: "POST", Body: []byte(`{"list":[{"id":"a"},{"id":"a"}]}`), ReceivedAt: at})
		if err != nil || len(evs) != 2 {
			t.Fatalf("%v %+v", err, evs)
		}
		return []string{evs[0].CEID, evs[1].CEID}
	}
	one, again, later := read(sampleNow), read(sampleNow.Local()), read(sampleNow.Add(time.Nanosecond))
	if one[0] != again[0] || one[1] != again[1] {
		t.Errorf("read twice: %v and %v", one, again)
	}
	if one[0] == one[1] || one[0] == later[0] || one[1] == later[1] {
		t.Errorf("not told apart: %v, %v", one, later)
	}
}

// TestSignals: providers that only say that something changed lose no signal to another
// of the same text, and Google's channels do not share their numbers.
func TestSignals(t *testing.T) {
	cat := builtins(t)
	for _, name := range []string{"dropbox", "cronofy", "doppler", "plaid"} {
		d, _ := cat.Get(name)
		r, err := d.Sample("", SampleParams{Now: sampleNow})
		if err != nil {
			t.Fatal(err)
		}
		first, err := d.Events(r)
		if err != nil {
			t.Fatal(err)
		}
		r.ReceivedAt = sampleNow.Add(time.Minute)
		second, err := d.Events(r)
		if err != nil {
			t.Fatal(err)
		}
		if first[0].CEID == second[0].CEID {
			t.Errorf("%s: a second signal is taken for the first", name)
		}
	}
}

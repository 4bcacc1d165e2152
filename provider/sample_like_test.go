package provider

import (
	"strings"
	"testing"
)

// TestSampleOfEveryCanonicalType: `penstock send NAME --type payment.expired` works for
// every canonical type that a provider has; a new row of a mapping brings its sample.
func TestSampleOfEveryCanonicalType(t *testing.T) {
	cat := builtins(t)
	for _, name := range cat.Names() {
		d, _ := cat.Get(name)
		for _, e := range d.CanonicalEvents() {
			if _, err := d.Sample(e.Type, SampleParams{}); err != nil {
				t.Errorf("%v: %s needs a sample in samples/%s.yaml", err, e.Type, name)
			}
		}
	}
}

const likeDefinition = `name: x
scheme: hmac
algorithm: sha256
signed: "{body}"
signature: {header: X, encoding: hex}
event: {id: id, type: type, status: data.status}
samples:
  events:
    - {type: paid, body: '{"id":"${event_hex}","type":"${type}","data":{"status":"paid","sum":${amount_minor},"lines":[{"n":1}]}}'}
`

// TestSampleLike: one event's body with other words in it.
func TestSampleLike(t *testing.T) {
	d, err := Parse("x.yaml", []byte(likeDefinition+`    - {type: failed, like: paid, set: {data.status: failed, data.why: {code: 51}, data.sum: "=${amount_minor}", data.lines.0: 'of ${order_id} "x"', new.deep: true, data.gone: null}}
`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Sample("failed", SampleParams{OrderID: "O-1", EventID: "e"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `"type":"failed","data":{"status":"failed","sum":129900,"lines":["of O-1 \"x\""],"gone":null,"why":{"code":51}},"new":{"deep":true}}`
	if !strings.HasSuffix(string(r.Body), want) {
		t.Errorf("%s, want ...%s", r.Body, want)
	}
	for text, want := range map[string]string{
		`    - {type: failed, like: nothing}`:                  `no sample "nothing"`,
		`    - {type: failed, like: paid, body: "{}"}`:         "one of body and like",
		`    - {type: failed}`:                                 "one of body and like",
		`    - {type: failed, like: paid, set: {a: "=no"}}`:    "a:",
		`    - {type: failed, body: "no", set: {a: b}}`:        "parse the body to set a",
		`    - {type: failed, like: paid, sett: {a: "=true"}}`: "did you mean",
	} {
		if _, err := Parse("x.yaml", []byte(likeDefinition+text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

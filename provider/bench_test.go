package provider

import (
	"bytes"
	"testing"
)

// stripe1K is a delivery of about 1 KiB, as the throughput targets are stated for.
func stripe1K(t testing.TB) (*Definition, *Request) {
	t.Helper()
	d, _ := builtins(t).Get("stripe")
	r, err := d.Sample("payment_intent.succeeded", SampleParams{OrderID: "ORD-1", Now: sampleNow})
	if err != nil {
		t.Fatal(err)
	}
	return d, r
}

func BenchmarkEventsStripe(b *testing.B) {
	d, r := stripe1K(b)
	b.SetBytes(int64(len(r.Body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Events(r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEventsLongID: an id of many digits looks like a card number at first.
func BenchmarkEventsLongID(b *testing.B) {
	d, r := stripe1K(b)
	r.Body = bytes.Replace(r.Body, []byte(`"evt_`), []byte(`"evt_01234567890123456789`), 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Events(r); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkEvents(b *testing.B, name, typ string) {
	d, _ := builtins(b).Get(name)
	r, err := d.Sample(typ, SampleParams{OrderID: "ORD-1", Now: sampleNow})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(r.Body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Events(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEventsAdyen(b *testing.B)         { benchmarkEvents(b, "adyen", "") }
func BenchmarkEventsLiqPay(b *testing.B)        { benchmarkEvents(b, "liqpay", "") }
func BenchmarkEventsWayForPay(b *testing.B)     { benchmarkEvents(b, "wayforpay", "") }
func BenchmarkEventsPaddleClassic(b *testing.B) { benchmarkEvents(b, "paddle_classic", "") }
func BenchmarkEventsMetaBatch(b *testing.B)     { benchmarkEvents(b, "meta", "messages batch") }

func BenchmarkBuiltin(b *testing.B) {
	for b.Loop() {
		if _, err := Builtin(); err != nil {
			b.Fatal(err)
		}
	}
}

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"penstock/archive"
)

// What a filled archive is like: a hundred sources would be many, three few.
const (
	adminSources = 20
	adminDays    = 90
	fillWorkers  = 256
	fillChunk    = 32 // outcomes of one append
)

// filling is an archive that is being filled with what ninety days may have brought.
type filling struct {
	a     *archive.Archive
	n     int
	body  int
	begin time.Time
	step  time.Duration
	next  atomic.Int64
	id    atomic.Pointer[string] // of a published delivery in the middle
	epoch map[string]uint64      // by source
}

// fillForAdmins makes an archive of n deliveries with their outcomes in dir, and indexes it. One that
// is there already with as many is taken as it is. It gives the id of one delivery.
func fillForAdmins(dir string, n, body int) (id string, err error) {
	mark := filepath.Join(dir, "filled-"+strconv.Itoa(n))
	if b, err := os.ReadFile(mark); err == nil {
		return string(b), nil
	}
	if _, err := os.Stat(dir); err == nil {
		return "", fmt.Errorf("%s is there and does not hold %d deliveries of this benchmark; remove it, or name another directory", dir, n)
	}
	f := &filling{n: n, body: body, begin: time.Now().Add(-adminDays * 24 * time.Hour), step: adminDays * 24 * time.Hour / time.Duration(n)}
	f.a, err = archive.Open(dir, archive.Options{Now: f.now, Extract: func(d *archive.Delivery) (archive.Fields, bool) {
		k, err := strconv.Atoi(string(d.Header))
		return f.fields(k), err == nil
	}})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.a.Close()) }()
	// Documents that say nothing: a delivery's page finds them at once, as it would real
	// ones, and leaves the decoded event out.
	f.epoch = map[string]uint64{}
	for k := range 100 * adminSources {
		name, _ := sourceOf(k)
		f.epoch[name] = f.a.RegisterEpoch(name, []byte("{}"))
	}
	var wg sync.WaitGroup
	errs := make([]error, fillWorkers)
	for w := range errs {
		wg.Go(func() { errs[w] = f.work() })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	for f.a.IndexLag() > 0 {
		time.Sleep(50 * time.Millisecond)
	}
	id = *f.id.Load()
	return id, os.WriteFile(mark, []byte(id), 0o600)
}

// now is the time that the archive believes in, so that refusals are sampled as they would be.
func (f *filling) now() time.Time { return f.at(int(f.next.Load())) }

func (f *filling) at(k int) time.Time { return f.begin.Add(f.step * time.Duration(min(k, f.n))) }

func (f *filling) work() error {
	var outcomes []archive.Outcome
	for {
		k := int(f.next.Add(1)) - 1
		if k >= f.n || len(outcomes) == fillChunk {
			if len(outcomes) > 0 {
				if err := f.a.AppendOutcomes(outcomes); err != nil {
					return err
				}
				outcomes = outcomes[:0]
			}
			if k >= f.n {
				return nil
			}
		}
		d := f.delivery(k)
		if d.Verdict == archive.Rejected {
			if _, err := f.a.Reject(d); err != nil {
				return err
			}
			continue
		}
		if err := f.a.Append(d); err != nil {
			return err
		}
		if d.Verdict == archive.Accepted && k%500 != 7 { // the rest is pending
			outcomes = append(outcomes, f.outcome(k, d))
		}
		if k >= f.n/2 && f.id.Load() == nil {
			f.id.CompareAndSwap(nil, &d.ID)
		}
	}
}

func sourceOf(k int) (name, provider string) {
	s := k * 2654435761 >> 7 % adminSources // no regular pattern, and the same in each run
	return fmt.Sprintf("%s-%d", providers[s%len(providers)], s), providers[s%len(providers)]
}

var refusals = [...]string{"signature_mismatch", "signature_mismatch", "signature_missing", "timestamp_outside_tolerance", "ip_not_allowed"}

func (f *filling) delivery(k int) *archive.Delivery {
	source, provider := sourceOf(k)
	fields := f.fields(k)
	d := &archive.Delivery{ReceivedAt: f.at(k), Source: source, Provider: provider, Epoch: f.epoch[source], Verdict: archive.Accepted, Method: "POST",
		Target: []byte("/in/" + source), VerifiedBy: "hmac-sha256:ab12", RemoteIP: netip.AddrFrom4([4]byte{203, 0, 113, byte(k)}), //nolint:gosec // any
		Header: strconv.AppendInt(nil, int64(k), 10), Body: stripeBody(nil, fields.EventID, f.body)}
	if k%3 == 0 {
		d.Tenant = "merchant-" + strconv.Itoa(k%50)
	}
	switch {
	case k%33 == 5:
		d.Verdict, d.Reason = archive.Rejected, refusals[k/33%len(refusals)]
	case k%1000 == 1:
		d.Verdict = archive.Challenge
	}
	return d
}

// life is what one payment's events say, in their order.
var life = [...][3]string{
	{"payment_intent.created", "payment.pending", "requires_payment_method"},
	{"payment_intent.succeeded", "payment.captured", "succeeded"},
	{"charge.refunded", "refund.succeeded", "succeeded"},
}

func (f *filling) fields(k int) archive.Fields {
	live, minor := k%10 != 3, int64(100+k*7919%900_000)
	l := life[k%len(life)]
	if k%40 == 11 {
		l = [3]string{"payment_intent.payment_failed", "payment.failed", "failed"}
	}
	out := archive.Fields{EventID: fmt.Sprintf("evt_1Nv2Kx2eZvKYlo2C%08d", k), EventType: l[0], Type: l[1], OrderID: fmt.Sprintf("ORD-%d", k/3),
		PaymentID: fmt.Sprintf("pi_3Nv2Kx2eZvKYlo2C%08d", k/3), Status: l[2], RequestID: fmt.Sprintf("req_%012d", k),
		IdempotencyKey: fmt.Sprintf("7d1c9a52-%04x-4e0b-9f6e-%012d", k&0xffff, k), Livemode: &live, AmountMinor: &minor, Currency: [...]string{"EUR", "USD", "UAH"}[k%3]}
	out.CEID = out.EventID
	return out
}

func (f *filling) outcome(k int, d *archive.Delivery) archive.Outcome {
	o := archive.Outcome{Delivery: d.Seq, Items: 1, Kind: archive.Published, At: d.ReceivedAt.Add(20 * time.Millisecond), Source: d.Source, Sink: "kafka:bench",
		Topic: "webhooks." + d.Provider, Partition: int32(k % 6), Offset: int64(k), Identity: archive.Identity{byte(k), byte(k >> 8), byte(k >> 16), byte(k >> 24), 1}, Fields: f.fields(k)}
	switch {
	case k%10 == 4:
		o.Kind = archive.Duplicate
		if twin := f.id.Load(); twin != nil {
			o.Of = *twin
		}
	case k%200 == 9:
		o.Kind, o.Reason = archive.Dead, "too_large"
	case k%300 == 19:
		o.Kind, o.Reason = archive.Held, "source_paused"
	case k%100 == 31:
		o.Kind, o.Reason = archive.Filtered, "no_route"
	}
	return o
}

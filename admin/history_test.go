package admin

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

// related gives the ids in the table of the same order or payment, and the section's own words.
func (w *world) related(id string) (ids []string, section string) {
	w.t.Helper()
	_, page, _ := strings.Cut(w.call("GET", "/deliveries/"+id, viewerToken, "").Body.String(), "<h2>The same order or payment")
	section, _, _ = strings.Cut(page, "</section>")
	for _, part := range strings.Split(section, `<tr data-id="`)[1:] {
		id, _, _ := strings.Cut(part, `"`)
		ids = append(ids, id)
	}
	return ids, section
}

// A refund that names the payment alone leads to its order, and by that to what other providers
// said of it; what was refused leads to nothing, for anybody could have written it.
func TestHistoryFollowsThePayment(t *testing.T) {
	w := newWorld(t, nil)
	w.archive.whole = true
	at := time.Date(2026, 5, 28, 20, 0, 0, 0, time.UTC)
	add := func(id, source, verdict, order, payment string) {
		at = at.Add(time.Minute)
		w.archive.add(archive.Row{ID: id, Source: source, Provider: source, Verdict: verdict, OrderID: order, PaymentID: payment, ReceivedAt: at}, &archive.Delivery{Body: []byte("{}")})
	}
	add("paid", "stripe", "accepted", "order-1", "pi_1")
	add("tried", "liqpay", "accepted", "order-1", "77")
	add("forged", "liqpay", "rejected", "order-1", "pi_other")
	add("foreign", "stripe", "accepted", "order-9", "pi_other")
	add("charged-back", "liqpay", "accepted", "", "77")
	add("refunded", "stripe", "accepted", "", "pi_1")
	for _, id := range []string{"paid", "refunded", "charged-back"} {
		ids, section := w.related(id)
		if want := []string{"paid", "tried", "forged", "charged-back", "refunded"}; !slices.Equal(ids, want) {
			t.Errorf("%s: %v, want %v", id, ids, want)
		}
		if strings.Contains(section, "all of them") {
			t.Errorf("%s: it says that there are more", id)
		}
	}
	if ids, _ := w.related("foreign"); !slices.Equal(ids, []string{"forged", "foreign"}) {
		t.Errorf("of another order: %v", ids)
	}
}

// Where there are more, the link leads to them by the id that the delivery has.
func TestHistoryLeadsToTheRest(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 3 {
		w.archive.add(archive.Row{ID: "p" + strconv.Itoa(i), Source: "stripe", Verdict: "accepted", PaymentID: "pi 1"}, &archive.Delivery{Body: []byte("{}")})
	}
	if _, section := w.related("p1"); !strings.Contains(section, `<a href="/?payment_id=pi&#43;1">all of them</a>`) {
		t.Errorf("no link to the payment's deliveries:\n%.400s", section)
	}
	if _, section := w.related(publishedID); !strings.Contains(section, `<a href="/?order_id=order%3A672626">all of them</a>`) {
		t.Errorf("no link to the order's deliveries:\n%.400s", section)
	}
}

// Every reason of a refusal has words, and they say what to do.
func TestReasonsHaveACure(t *testing.T) {
	reasons := strings.Fields("signature_missing signature_malformed signature_mismatch timestamp_missing timestamp_outside_tolerance duplicate_header ip_not_allowed merchant_mismatch key_unavailable policy")
	if got := slices.Sorted(maps.Keys(reasonWords)); !slices.Equal(got, slices.Sorted(slices.Values(reasons))) {
		t.Fatalf("there are words for %v", got)
	}
	for reason, words := range reasonWords {
		if strings.Count(words, ". ")+strings.Count(words, ": ") == 0 {
			t.Errorf("%s: says what it is and not what to do: %s", reason, words)
		}
	}
}

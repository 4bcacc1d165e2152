package forward

import (
	"testing"

	"penstock/archive"
	"penstock/provider"
)

// TestTenantIdentity: two merchants behind one source number their orders alike, and the
// event of one must never make the other's a duplicate; one merchant's repeat stays one.
func TestTenantIdentity(t *testing.T) {
	cat, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	def, _ := cat.Get("wayforpay")
	of := func(tenant string, many bool) *provider.Event {
		t.Helper()
		d := &archive.Delivery{ID: "D", Source: "pay", Method: "POST", Target: []byte("/in/pay"), Tenant: tenant,
			Body: []byte(`{"merchantAccount":"in_the_body","orderReference":"1001","amount":10,"currency":"UAH","transactionStatus":"Approved","reasonCode":1100,"authCode":"1","cardPan":"4"}`)}
		evs, err := readEvents(&SourceInfo{Name: "pay", Provider: "wayforpay", Definition: def, Tenants: many}, d)
		if err != nil || len(evs) != 1 {
			t.Fatal(err)
		}
		return &evs[0]
	}
	a, b := of("shop_1", true), of("shop_2", true)
	if a.CEID == b.CEID {
		t.Errorf("two merchants, one event: %s", a.CEID)
	}
	if again := of("shop_1", true); again.CEID != a.CEID {
		t.Errorf("a repeat is another event: %s, %s", a.CEID, again.CEID)
	}
	if a.Tenant != "shop_1" {
		t.Errorf("tenant %q, want the one that the key proved", a.Tenant)
	}
	// Refused, then released by an operator: the event names it, and so would the repeat.
	if e := of("", true); e.Tenant != "in_the_body" || e.CEID == of("shop_1", true).CEID {
		t.Errorf("released: tenant %q", e.Tenant)
	}
	if x, y := of("shop_1", false), of("", false); x.CEID != y.CEID {
		t.Errorf("a source with one merchant has other ids than before: %s, %s", x.CEID, y.CEID)
	}
}

// TestTenantTopic: a merchant's name is written so that a topic can have it.
func TestTenantTopic(t *testing.T) {
	for tenant, want := range map[string]string{"shop_1": "t.shop_1", "a shop/ї": "t.a-shop--", "": "t.none"} {
		d := &archive.Delivery{Source: "pay", Tenant: tenant}
		if got := topicFor("t.{tenant}", d, &SourceInfo{Tenants: true}, &provider.Event{Tenant: tenant}); got != want {
			t.Errorf("topic %q, want %q", got, want)
		}
	}
	// What the event says of itself makes no topic where no key proved it.
	if got := topicFor("t.{tenant}", &archive.Delivery{}, &SourceInfo{}, &provider.Event{Tenant: "chosen"}); got != "t.none" {
		t.Errorf("topic %q", got)
	}
}

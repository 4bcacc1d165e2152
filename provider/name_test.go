package provider

import (
	"slices"
	"testing"
)

// TestMemberName: where the type is the name of a member.
func TestMemberName(t *testing.T) {
	d := parse(t, head+`
event: {type: ["name:*_events", "name:!id"]}
canonical: [{type: "*", is: provider}]
`)
	for body, want := range map[string]string{
		`{"id":1,"a":2,"follow_events":[]}`: "follow_events",
		`{"id":1,"a":2,"b":3}`:              "a",
		`{"a":1,"id":2}`:                    "a",
		`{"id":1}`:                          "",
		`{}`:                                "",
		`[1]`:                               "",
	} {
		if got := events(t, d, body)[0].Type; got != want {
			t.Errorf("%s: type %q, want %q", body, got, want)
		}
	}
	tg, _ := builtins(t).Get("telegram")
	if e := events(t, tg, `{"update_id":7,"poll":{"id":"p"}}`)[0]; e.Type != "poll" || !slices.Contains(e.UnverifiedFields, "type") {
		t.Errorf("%q, unverified %v: a token signs nothing", e.Type, e.UnverifiedFields)
	}
	x, _ := builtins(t).Get("x")
	if e := events(t, x, `{"for_user_id":"1","follow_events":[{"type":"follow"}]}`)[0]; e.Type != "follow_events" || len(e.UnverifiedFields) > 0 {
		t.Errorf("%q, unverified %v", e.Type, e.UnverifiedFields)
	}
}

// TestSaaSBatches: one event and one identity for each thing that happened.
func TestSaaSBatches(t *testing.T) {
	for _, c := range []struct {
		name, body string
		types      []string
	}{
		{"sendgrid", `[{"event":"delivered","sg_event_id":"a"},{"event":"open","sg_event_id":"b"}]` + "\r\n", []string{"delivered", "open"}},
		{"tailscale", `[{"type":"nodeCreated","timestamp":"2026-01-01T00:00:00.1Z"},{"type":"nodeCreated","timestamp":"2026-01-01T00:00:00.2Z"}]`, []string{"nodeCreated", "nodeCreated"}},
		{"pusher", `{"time_ms":1,"events":[{"name":"channel_occupied","channel":"a"},{"name":"channel_occupied","channel":"b"}]}`, []string{"channel_occupied", "channel_occupied"}},
		{"quickbooks", `{"eventNotifications":[{"realmId":"1","dataChangeEvent":{"entities":[{"name":"Vendor","id":"1","operation":"Merge"},{"name":"Bill","id":"1","operation":"Create"}]}},{"realmId":"2","dataChangeEvent":{"entities":[{"name":"Bill","id":"1","operation":"Create"}]}}]}`, []string{"Vendor.Merge", "Bill.Create", "Bill.Create"}},
		{"quickbooks", `[{"specversion":"1.0","id":"e1","type":"qbo.bill.created.v1"},{"specversion":"1.0","id":"e2","type":"qbo.bill.created.v1"}]`, []string{"qbo.bill.created.v1", "qbo.bill.created.v1"}},
		{"xero", `{"events":[{"resourceId":"r","eventDateUtc":"2026-01-01T00:00:00.000","eventType":"UPDATE","eventCategory":"CONTACT"},{"resourceId":"r","eventDateUtc":"2026-01-01T00:00:00.001","eventType":"UPDATE","eventCategory":"CONTACT"}]}`, []string{"CONTACT.UPDATE", "CONTACT.UPDATE"}},
		{"okta", `{"eventId":"e","data":{"events":[{"uuid":"1","eventType":"a"},{"uuid":"2","eventType":"b"}]}}`, []string{"a", "b"}},
		{"smartsheet", `{"nonce":"n","events":[{"objectType":"row","eventType":"created","id":1},{"objectType":"row","eventType":"created","id":1}]}`, []string{"row.created", "row.created"}},
		{"twitch", `{"subscription":{"type":"drop.entitlement.grant","status":"enabled"},"events":[{"id":"1"},{"id":"2"}]}`, []string{"drop.entitlement.grant", "drop.entitlement.grant"}},
		{"microsoft_graph", `{"value":[{"id":"1","changeType":"created","clientState":"s3cret-state"},{"id":"2","changeType":"updated","clientState":"s3cret-state"}]}`, []string{"created", "updated"}},
		{"x", `{"for_user_id":"1","favorite_events":[{"id":"a"},{"id":"b"}]}`, []string{"favorite_events", "favorite_events"}},
	} {
		d, _ := builtins(t).Get(c.name)
		var types []string
		ids := map[string]bool{}
		for _, e := range events(t, d, c.body) {
			types = append(types, e.Type)
			ids[e.CEID] = true
			if c.name == "microsoft_graph" && slices.Contains(e.Masked, "value.0.clientState") == false {
				t.Errorf("clientState leaves the archive: masked %v", e.Masked)
			}
		}
		if !slices.Equal(types, c.types) || len(ids) != len(c.types) {
			t.Errorf("%s: types %v, identities %v", c.name, types, ids)
		}
	}
}

// TestSaaSIdentity: what differs in what tells events apart is another event, a repeat is
// not.
func TestSaaSIdentity(t *testing.T) {
	for _, c := range []struct{ name, a, b string }{
		{"pusher", `{"time_ms":1,"events":[{"name":"channel_occupied","channel":"a"}]}`, `{"time_ms":2,"events":[{"name":"channel_occupied","channel":"a"}]}`},
		{"viber", `{"event":"delivered","message_token":4912661846655238145,"user_id":"u"}`, `{"event":"seen","message_token":4912661846655238145,"user_id":"u"}`},
		{"viber", `{"event":"seen","message_token":4912661846655238145,"user_id":"u"}`, `{"event":"seen","message_token":4912661846655238144,"user_id":"u"}`},
		{"zoom", `{"event":"meeting.participant_joined","event_ts":1,"payload":{"object":{"uuid":"m","participant":{"user_id":"1"}}}}`, `{"event":"meeting.participant_joined","event_ts":1,"payload":{"object":{"uuid":"m","participant":{"user_id":"2"}}}}`},
		{"mongodb_atlas", `{"id":"1","status":"OPEN"}`, `{"id":"1","status":"CLOSED"}`},
		{"webflow", `{"triggerType":"collection_item_changed","payload":{"id":"i","lastUpdated":"2026-01-01T00:00:00Z"}}`, `{"triggerType":"collection_item_changed","payload":{"id":"i","lastUpdated":"2026-01-02T00:00:00Z"}}`},
		{"travis_ci", "payload=" + `{"id":1,"state":"started","type":"push"}`, "payload=" + `{"id":1,"state":"passed","type":"push"}`},
		{"x", `{"for_user_id":"1","follow_events":[{"type":"follow"}]}`, `{"for_user_id":"2","follow_events":[{"type":"follow"}]}`},
	} {
		d, _ := builtins(t).Get(c.name)
		a, again, b := events(t, d, c.a)[0], events(t, d, c.a)[0], events(t, d, c.b)[0]
		if a.CEID != again.CEID || a.CEID == b.CEID {
			t.Errorf("%s: %s, again %s, another %s", c.name, a.CEID, again.CEID, b.CEID)
		}
	}
}

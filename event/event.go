// Package event is what consumers read: the value and the headers of a Penstock message in
// Kafka, as Go types. The gateway itself writes the value by hand, because the payload's
// bytes must stay what they are; tests hold the two to each other, and docs/schema is made
// from here. It imports nothing of the project, so that it may be copied as it is.
package event

import (
	"encoding/json"
	"time"
)

// DataSchema is the ce_dataschema of every message whose value is an Event. Fields are only
// ever added under one number; anything else is a new number.
const DataSchema = "/penstock/event/1"

// Event is the value of a message: one thing that happened, said the same way whichever
// provider it came from, with the provider's own document beside it.
type Event struct {
	Provider     string `json:"provider" jsonschema:"description=Name of the provider in the catalogue: stripe."`
	Source       string `json:"source" jsonschema:"description=The source of the configuration that received it."`
	Type         string `json:"type" jsonschema:"description=Canonical type such as payment.captured; <provider>.<its type> where there is none; test.<type> for a test event at a source with mode live."`
	ProviderType string `json:"provider_type" jsonschema:"description=The provider's own word for it."`
	// Livemode is false for sandbox keys, test flags and statuses; nil is unknown.
	Livemode *bool  `json:"livemode" jsonschema:"nullable,description=false is a test; null is unknown."`
	Tenant   string `json:"tenant,omitempty" jsonschema:"description=The merchant that the delivery names and the signature proves."`
	// OccurredAt is the provider's time, nil when it says none.
	OccurredAt *time.Time `json:"occurred_at" jsonschema:"nullable"`
	ReceivedAt time.Time  `json:"received_at"`

	// The block of the type's family; at most one of them stands.
	Payment      *Change `json:"payment,omitempty"`
	Refund       *Change `json:"refund,omitempty"`
	Payout       *Change `json:"payout,omitempty"`
	Dispute      *Change `json:"dispute,omitempty"`
	Subscription *Change `json:"subscription,omitempty"`

	Failure *Failure `json:"failure,omitempty" jsonschema:"description=Why it failed."`
	// UnverifiedFields are fields that the provider's signature does not cover.
	UnverifiedFields []string `json:"unverified_fields,omitempty" jsonschema:"description=Fields that the provider's signature does not cover."`
	// NeedsFetch: ask the provider for status and amount before booking anything.
	NeedsFetch bool `json:"needs_fetch,omitempty" jsonschema:"description=Ask the provider for status and amount before booking."`
	// Masked are the places of the payload that were changed to hide a card number or a
	// secret.
	Masked []string `json:"masked,omitempty" jsonschema:"description=Places of the payload that were masked."`

	// Exactly one of the three stands. Payload is the provider's document byte for byte.
	Payload       json.RawMessage `json:"payload,omitempty" jsonschema:"description=The provider's own document byte for byte."`
	PayloadBase64 []byte          `json:"payload_base64,omitempty" jsonschema:"description=The body where it is no JSON and no form."`
	PayloadRef    *PayloadRef     `json:"payload_ref,omitempty" jsonschema:"description=Where to fetch a body that is too large for the topic."`
}

// Change is the block of a family: what is now true of a payment, refund, payout, dispute
// or subscription.
type Change struct {
	ID      *string `json:"id" jsonschema:"nullable,description=The provider's id of the object itself."`
	OrderID *string `json:"order_id" jsonschema:"nullable,description=The merchant's own order."`
	// PaymentID stands with refunds and disputes only.
	PaymentID      *string `json:"payment_id,omitempty" jsonschema:"nullable,description=Of a refund or dispute: the payment that it belongs to; null is unknown."`
	Status         string  `json:"status" jsonschema:"description=The second word of the type."`
	ProviderStatus *string `json:"provider_status" jsonschema:"nullable"`
	Amount         *Money  `json:"amount" jsonschema:"nullable,description=Of this change; null where the provider does not say."`
	PaymentAmount  *Money  `json:"payment_amount,omitempty" jsonschema:"description=Of the whole payment where this change is a part."`
	CardMask       string  `json:"card_mask,omitempty"`
	// References are other identifiers by who uses them (network, provider, invoice).
	References map[string]string `json:"references"`
}

// Money is a whole number of minor units.
type Money struct {
	Minor    int64  `json:"minor" jsonschema:"description=Whole minor units; never a fraction."`
	Currency string `json:"currency" jsonschema:"description=ISO 4217\\, upper case."`
	Exponent int    `json:"exponent" jsonschema:"minimum=0,description=Decimals of the currency: EUR 2\\, JPY 0\\, KWD 3."`
}

// Failure says why something failed.
type Failure struct {
	Reason       string  `json:"reason" jsonschema:"enum=insufficient_funds,enum=do_not_honor,enum=stolen_card,enum=expired_card,enum=limit_exceeded,enum=risk_decline,enum=bank_unavailable,enum=authentication_failed,enum=canceled_by_payer,enum=other"`
	ProviderCode *string `json:"provider_code" jsonschema:"nullable"`
}

// PayloadRef is a claim-check: the body stays in the gateway's archive until ExpiresAt and
// is read there with a token of the role consumer.
type PayloadRef struct {
	URL       string    `json:"url"`
	Node      string    `json:"node"`
	SHA256    string    `json:"sha256" jsonschema:"description=Of the exact bytes at url\\, hex."`
	Size      int64     `json:"size" jsonschema:"description=Bytes."`
	ExpiresAt time.Time `json:"expires_at"`
}

// Header is one Kafka header that a message may carry: CloudEvents 1.0 in Kafka's binary
// mode, with extensions.
type Header struct {
	Name     string
	Always   bool // every message has it
	About    string
	Standard bool // of CloudEvents; the others are extensions
}

// Headers are all headers in their order.
var Headers = []Header{
	{"ce_specversion", true, "1.0", true},
	{"ce_id", true, "Identity of the event, stable over the provider's redeliveries and over replays. Book on it.", true},
	{"ce_type", true, "The type, as in the value.", true},
	{"ce_source", true, "/penstock/<source>", true},
	{"ce_subject", false, "The entity: order, payment, customer. The message's key, where there is one.", true},
	{"ce_time", true, "When it occurred, else when it was received.", true},
	{"content-type", true, "application/json", true},
	{"ce_dataschema", true, DataSchema, true},
	{"ce_provider", true, "Name of the provider.", false},
	{"ce_providertype", false, "The provider's own type.", false},
	{"ce_deliveryid", true, "The delivery in the archive: penstock deliveries show ID.", false},
	{"ce_archiveseq", true, "Its number in this node's archive.", false},
	{"ce_bodysha256", true, "SHA-256 of the request body as received, hex.", false},
	{"ce_verifiedby", false, "Scheme and fingerprint of the credential that proved it; operator where somebody released it by force.", false},
	{"ce_tenant", false, "The merchant, as in the value.", false},
	{"ce_replay", false, "Id of the replay job. Book a replay on ce_id and ce_replay together, or pass it over.", false},
	{"ce_conflict", false, "Another content came under the same ce_id; this is the delivery that came first.", false},
	{"ce_repeats", false, "The provider said a state again under a new id; this is the delivery that said it first. The type is the provider's own: nothing to book.", false},
	{"traceparent", false, "W3C trace context of the request, where it had one.", false},
}

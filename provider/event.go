package provider

import "time"

// Money is an amount in the currency's minor units; never a float.
type Money struct {
	Minor    int64
	Currency string // ISO 4217, upper case
	Exponent int    // how many decimals the currency has: EUR 2, JPY 0, KWD 3
}

// Event is one thing that happened, as a definition reads it out of a delivery.
// Identifiers, types and statuses are the provider's own words unless said otherwise.
type Event struct {
	ID        string // event_id as the provider names it (of this item)
	CEID      string // ce_id: a function of the dedupe identity alone; stable over redeliveries
	Type      string // provider_type
	Canonical string // DESIGN 8: "payment.captured", else "<provider>.<type>"
	OwnType   string // "<provider>.<type>", whatever the canonical one is
	// State names what the event says of its object, for a provider that may say it again
	// under a new id without anything having changed; "" where that does not happen. The
	// canonical type goes out once per State.
	State      string
	Subject    string    // the entity it is about; the Kafka key ("" = key by CEID)
	OccurredAt time.Time // zero when unknown

	OrderID        string
	PaymentID      string // for a refund or a dispute: of the payment it belongs to
	ObjectID       string // id of the payment, refund, payout, dispute, subscription itself
	Status         string
	Amount         *Money // of this change
	Currency       string // ISO 4217, also where no amount stands
	PaymentAmount  *Money // of the whole payment, where Amount is a part
	CardMask       string
	References     map[string]string
	FailureReason  string // DESIGN 8 vocabulary; "" when not a failure
	FailureCode    string // the provider's code
	Livemode       *bool  // nil = unknown
	Tenant         string
	RequestID      string
	IdempotencyKey string

	// Payload is the provider's own document, byte for byte where it is strictly valid
	// JSON (PayloadJSON); otherwise raw bytes to be sent as base64. Masked lists the
	// paths that were changed to hide a card number or a secret field.
	Payload     []byte
	PayloadJSON bool
	Masked      []string

	// UnverifiedFields names what the signature does not cover; NeedsFetch says that
	// status or amount must be asked of the provider before anyone books.
	UnverifiedFields []string
	NeedsFetch       bool

	// Problems says what could not be read exactly (an amount that is no whole number of
	// minor units, a name that stands twice); one that touches money sets NeedsFetch.
	Problems []string

	// Item counts the events of one delivery from 0, Items is how many there are. In a
	// large batch the payload is the item's own bytes, which PayloadItem says.
	Item, Items int
	PayloadItem bool

	// Content is a hash of the signed content. Rerendered says that the provider renders
	// retries anew, so that another Content under one CEID is still the same event.
	Content    [16]byte
	Rerendered bool
}

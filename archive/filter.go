package archive

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Limits of a page.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// ErrCursor is returned by Query for a cursor that was not made for this filter; the
// caller answers 400.
var ErrCursor = errors.New("cursor does not belong to this filter")

// Pending is the outcome filter's word for accepted deliveries without any outcome.
const Pending = "pending"

// Filter says which deliveries are wanted; all that is set must hold. Where a delivery
// carries several events, each condition may be met by another of them.
type Filter struct {
	Source, Provider string
	Verdict          string // accepted, rejected, challenge
	Reason           string
	Outcome          string // published, duplicate, held, dead, filtered; pending = none yet
	EventType        string // the provider's word
	Type             string // canonical
	EventID          string
	OrderID          string
	PaymentID        string
	Tenant           string
	RequestID        string
	IdempotencyKey   string
	Livemode         *bool
	Status           string // the provider's word

	From, To time.Time // received at or after From, before To; zero = no bound

	// Q is free text: part of any column of the row that is text (ids, types, statuses,
	// source, provider, reason, address, method, path, of every event), ASCII case
	// ignored. Bodies and headers are not searched.
	Q string
	// Text is full text: part of the body as it came, of a header or of the path with its
	// query, ASCII case ignored. It is searched for in the log itself; see Progress.
	Text     string
	BodyOnly bool // Text is searched for in bodies alone: headers hold credentials

	Limit  int    // rows of a page, 1..500; 0 = 50
	Cursor string // Page.Next of the page before
	// Budget is how long a page may look through the index; what it has found then is
	// answered, with a Next. 0 = until the page is full (or full text's own time is up).
	Budget time.Duration
	// Behind says that the caller's thread has a lower priority than the rest: the kernel
	// lets it wait for them, and the search need not give way by itself.
	Behind bool

	fromText, toText string // as asked: -2h means another time on the next page
}

// ParseFilter reads the parameters of CONTRACT's list. An error names the parameter; a
// parameter that is not a filter is one. Empty values are as if absent.
func ParseFilter(v url.Values, now time.Time) (Filter, error) {
	var f Filter
	names := make([]string, 0, len(v))
	for name := range v {
		names = append(names, name)
	}
	sort.Strings(names) // the same mistake gives the same message
	for _, name := range names {
		if len(v[name]) > 1 {
			return Filter{}, fmt.Errorf("%s: given %d times, want once", name, len(v[name]))
		}
		value := v[name][0]
		if value == "" {
			if !f.known(name) {
				return Filter{}, fmt.Errorf("%s: there is no such filter", name)
			}
			continue
		}
		if err := f.set(name, value, now); err != nil {
			return Filter{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	if !f.From.IsZero() && !f.To.IsZero() && f.To.Before(f.From) {
		return Filter{}, fmt.Errorf("to: %s is before from %s", f.To.Format(time.RFC3339), f.From.Format(time.RFC3339))
	}
	return f, nil
}

// words gives the plain parameters and where they go.
func (f *Filter) words() map[string]*string {
	return map[string]*string{"source": &f.Source, "provider": &f.Provider, "reason": &f.Reason,
		"event_type": &f.EventType, "type": &f.Type, "event_id": &f.EventID, "order_id": &f.OrderID,
		"payment_id": &f.PaymentID, "tenant": &f.Tenant, "request_id": &f.RequestID,
		"idempotency_key": &f.IdempotencyKey, "status": &f.Status, "q": &f.Q, "text": &f.Text}
}

func (f *Filter) known(name string) bool {
	switch name {
	case "verdict", "outcome", "livemode", "from", "to", "limit", "cursor":
		return true
	}
	return f.words()[name] != nil
}

func (f *Filter) set(name, value string, now time.Time) (err error) {
	if p := f.words()[name]; p != nil {
		if len(value) > 4*maxIDBytes {
			return fmt.Errorf("longer than %d bytes", 4*maxIDBytes)
		}
		*p = value
		return nil
	}
	switch name {
	case "verdict":
		return oneOf(&f.Verdict, value, "accepted", "rejected", "challenge")
	case "outcome":
		return oneOf(&f.Outcome, value, "published", "duplicate", "held", "dead", "filtered", Pending)
	case "livemode":
		if value != "true" && value != "false" {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		live := value == "true"
		f.Livemode = &live
	case "from":
		f.From, err = parseTime(value, now, false)
		f.fromText = value
	case "to":
		f.To, err = parseTime(value, now, true)
		f.toText = value
	case "limit":
		f.Limit, err = strconv.Atoi(value)
		if err != nil || f.Limit < 1 || f.Limit > MaxLimit {
			return fmt.Errorf("%q is not a number from 1 to %d", value, MaxLimit)
		}
	case "cursor":
		f.Cursor = value
	default:
		return errors.New("there is no such filter")
	}
	return err
}

func oneOf(p *string, value string, words ...string) error {
	for _, w := range words {
		if w == value {
			*p = value
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", value, strings.Join(words, ", "))
}

// hash stands in a cursor, so that it is not continued with another filter.
func (f *Filter) hash() uint64 {
	live := ""
	if f.Livemode != nil {
		live = strconv.FormatBool(*f.Livemode)
	}
	from, to := f.fromText, f.toText
	if from == "" && !f.From.IsZero() {
		from = f.From.UTC().Format(time.RFC3339Nano)
	}
	if to == "" && !f.To.IsZero() {
		to = f.To.UTC().Format(time.RFC3339Nano)
	}
	var b []byte
	for _, s := range [...]string{f.Source, f.Provider, f.Verdict, f.Reason, f.Outcome, f.EventType, f.Type, f.EventID,
		f.OrderID, f.PaymentID, f.Tenant, f.RequestID, f.IdempotencyKey, live, f.Status, f.Q, from, to} {
		b = appendString(b, s)
	}
	if f.Text != "" { // cursors of before stay valid
		b = appendString(append(b, "text"...), f.Text)
		b = append(b, strconv.FormatBool(f.BodyOnly)...)
	}
	return fnv64(string(b))
}

const (
	cursorVersion = 1
	cursorSize    = 1 + 8 + orderSize
)

func (f *Filter) cursor(o order) string {
	b := binary.BigEndian.AppendUint64([]byte{cursorVersion}, f.hash())
	return base64.RawURLEncoding.EncodeToString(append(b, o[:]...))
}

// after reads the cursor: the place of the last row that was seen.
func (f *Filter) after() (o order, ok bool, err error) {
	if f.Cursor == "" {
		return order{}, false, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(f.Cursor)
	if err != nil || len(b) != cursorSize || b[0] != cursorVersion {
		return order{}, false, fmt.Errorf("%w: it is not one of ours", ErrCursor)
	}
	if binary.BigEndian.Uint64(b[1:]) != f.hash() {
		return order{}, false, ErrCursor
	}
	copy(o[:], b[9:])
	return o, true, nil
}

// The searchable fields; the numbers are part of the index's format.
const (
	bySource byte = iota + 1
	byProvider
	byVerdict
	byReason
	byOutcome
	byEventType
	byType
	byEventID
	byOrderID
	byPaymentID
	byTenant
	byRequestID
	byIdempotencyKey
	byStatus
	byLivemode
)

type fieldValue struct {
	field byte
	value string
}

// values lists what a filter asks by equality.
func (f *Filter) values() []fieldValue {
	vs := make([]fieldValue, 0, 15)
	add := func(field byte, v string) {
		if v != "" {
			vs = append(vs, fieldValue{field, clip(v, maxIDBytes)})
		}
	}
	add(bySource, f.Source)
	add(byProvider, f.Provider)
	add(byVerdict, f.Verdict)
	add(byReason, f.Reason)
	add(byOutcome, f.Outcome)
	add(byEventType, f.EventType)
	add(byType, f.Type)
	add(byEventID, f.EventID)
	add(byOrderID, f.OrderID)
	add(byPaymentID, f.PaymentID)
	add(byTenant, f.Tenant)
	add(byRequestID, f.RequestID)
	add(byIdempotencyKey, f.IdempotencyKey)
	add(byStatus, f.Status)
	if f.Livemode != nil {
		add(byLivemode, strconv.FormatBool(*f.Livemode))
	}
	return vs
}

// each calls visit for every searchable value of the entry, until visit returns false.
func (e *entry) each(visit func(field byte, value string) bool) {
	r := &e.row
	type fv = fieldValue
	for _, v := range [...]fv{{bySource, r.Source}, {byProvider, r.Provider}, {byVerdict, r.Verdict},
		{byReason, r.Reason}, {byTenant, r.Tenant}} {
		if v.value != "" && !visit(v.field, v.value) {
			return
		}
	}
	if e.kinds == 0 && r.Verdict == Accepted.String() && !visit(byOutcome, Pending) {
		return
	}
	for _, k := range kindOrder {
		if e.kinds&(1<<k) != 0 && !visit(byOutcome, k.String()) {
			return
		}
	}
	for i := range e.items {
		f := &e.items[i].f
		for _, v := range [...]fv{{byEventType, f.EventType}, {byType, f.Type}, {byEventID, f.EventID},
			{byOrderID, f.OrderID}, {byPaymentID, f.PaymentID}, {byRequestID, f.RequestID},
			{byIdempotencyKey, f.IdempotencyKey}, {byStatus, f.Status}} {
			if v.value != "" && !visit(v.field, v.value) {
				return
			}
		}
		if f.Livemode != nil && !visit(byLivemode, strconv.FormatBool(*f.Livemode)) {
			return
		}
	}
}

// matches decides alone whether an entry fits: indexes only say where to look.
func (f *Filter) matches(e *entry) bool {
	at := e.row.ReceivedAt
	if !f.From.IsZero() && at.Before(f.From) || !f.To.IsZero() && !at.Before(f.To) {
		return false
	}
	for _, want := range f.values() {
		found := false
		e.each(func(field byte, value string) bool {
			found = field == want.field && value == want.value
			return !found
		})
		if !found {
			return false
		}
	}
	return f.Q == "" || e.contains(lowerASCII(f.Q))
}

// contains looks for a lower-case needle in every textual column.
func (e *entry) contains(needle string) bool {
	for _, s := range e.row.strings() {
		if containsFold(*s, needle) {
			return true
		}
	}
	for i := range e.items {
		for _, s := range e.items[i].f.strings() {
			if containsFold(*s, needle) {
				return true
			}
		}
	}
	return containsFold(e.outcome(), needle)
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// containsFold reports whether s contains the lower-case needle, ASCII case ignored.
func containsFold[T string | []byte](s T, needle string) bool {
	if needle == "" {
		return true
	}
	for i := 0; i+len(needle) <= len(s); i++ {
		if foldByte(s[i]) != needle[0] {
			continue
		}
		j := 1
		for j < len(needle) && foldByte(s[i+j]) == needle[j] {
			j++
		}
		if j == len(needle) {
			return true
		}
	}
	return false
}

func foldByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

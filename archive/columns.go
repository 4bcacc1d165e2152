package archive

import (
	"strconv"
	"strings"
	"time"
)

// rowColumns are a row's columns in the order of CONTRACT's list.
var rowColumns = [...]string{"id", "seq", "received_at", "source", "provider", "verdict", "reason", "outcome", "duplicate_of",
	"event_id", "event_type", "type", "order_id", "payment_id", "tenant", "request_id", "idempotency_key", "livemode", "status",
	"amount_minor", "currency", "remote_ip", "method", "path", "size"}

// RowColumns names the columns of Row.Record.
func RowColumns() []string { return rowColumns[:] }

// Record appends the row as text, column by column; what is not known is "". A value that
// a spreadsheet would take for a formula gets a leading apostrophe: senders choose these
// values, and a table of payments is opened in one.
func (r *Row) Record(rec []string) []string {
	live, amount := "", ""
	if r.Livemode != nil {
		live = strconv.FormatBool(*r.Livemode)
	}
	if r.AmountMinor != nil {
		amount = strconv.FormatInt(*r.AmountMinor, 10)
	}
	start := len(rec)
	rec = append(rec, r.ID, strconv.FormatUint(r.Seq, 10), r.ReceivedAt.UTC().Format(time.RFC3339Nano), r.Source, r.Provider, r.Verdict,
		r.Reason, r.Outcome, r.DuplicateOf, r.EventID, r.EventType, r.Type, r.OrderID, r.PaymentID, r.Tenant, r.RequestID,
		r.IdempotencyKey, live, r.Status, "", r.Currency, r.RemoteIP, r.Method, r.Path, strconv.FormatInt(r.Size, 10))
	for i := start; i < len(rec); i++ {
		if rec[i] != "" && strings.IndexByte("=+-@\t\r", rec[i][0]) >= 0 {
			rec[i] = "'" + rec[i]
		}
	}
	rec[start+19] = amount // ours, and may be negative
	return rec
}

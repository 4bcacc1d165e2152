package cli

import (
	"encoding/csv"
	"io"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"penstock/archive"
)

// rowFile is a table being written; add and close, in that order.
type rowFile interface {
	add(r *archive.Row) error
	close() error
}

func newRowFile(format string, w io.Writer) rowFile {
	if format == "parquet" {
		return newParquetFile(w)
	}
	return &csvFile{w: csv.NewWriter(w)}
}

type csvFile struct {
	w      *csv.Writer
	record []string
	begun  bool
}

func (f *csvFile) begin() error {
	if f.begun {
		return nil
	}
	f.begun = true
	return f.w.Write(archive.RowColumns())
}

func (f *csvFile) add(r *archive.Row) error {
	if err := f.begin(); err != nil {
		return err
	}
	f.record = r.Record(f.record[:0])
	return f.w.Write(f.record)
}

func (f *csvFile) close() error {
	if err := f.begin(); err != nil { // a table without rows has its columns
		return err
	}
	f.w.Flush()
	return f.w.Error()
}

// parquetRow is a row as Parquet has it: words that repeat as dictionaries, what may be
// unknown as optional. Amounts are minor units, as everywhere.
type parquetRow struct {
	ID             string    `parquet:"id"`
	Seq            int64     `parquet:"seq,delta"`
	ReceivedAt     time.Time `parquet:"received_at,timestamp(microsecond)"`
	Source         string    `parquet:"source,dict"`
	Provider       string    `parquet:"provider,dict"`
	Verdict        string    `parquet:"verdict,dict"`
	Reason         string    `parquet:"reason,dict"`
	Outcome        string    `parquet:"outcome,dict"`
	DuplicateOf    string    `parquet:"duplicate_of"`
	EventID        string    `parquet:"event_id"`
	EventType      string    `parquet:"event_type,dict"`
	Type           string    `parquet:"type,dict"`
	OrderID        string    `parquet:"order_id"`
	PaymentID      string    `parquet:"payment_id"`
	Tenant         string    `parquet:"tenant,dict"`
	RequestID      string    `parquet:"request_id"`
	IdempotencyKey string    `parquet:"idempotency_key"`
	Livemode       *bool     `parquet:"livemode,optional"`
	Status         string    `parquet:"status,dict"`
	AmountMinor    *int64    `parquet:"amount_minor,optional"`
	Currency       string    `parquet:"currency,dict"`
	RemoteIP       string    `parquet:"remote_ip,dict"`
	Method         string    `parquet:"method,dict"`
	Path           string    `parquet:"path,dict"`
	Size           int64     `parquet:"size"`
}

const (
	parquetBatch = 1024
	// parquetGroup bounds the rows that are in memory until their group is written.
	parquetGroup = 50_000
)

type parquetFile struct {
	w     *parquet.GenericWriter[parquetRow]
	batch []parquetRow
}

func newParquetFile(w io.Writer) *parquetFile {
	return &parquetFile{batch: make([]parquetRow, 0, parquetBatch), w: parquet.NewGenericWriter[parquetRow](w,
		parquet.MaxRowsPerRowGroup(parquetGroup), parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}),
		parquet.CreatedBy("penstock", "", ""))}
}

func (f *parquetFile) add(r *archive.Row) error {
	f.batch = append(f.batch, parquetRow{ID: r.ID, Seq: int64(r.Seq), ReceivedAt: r.ReceivedAt, Source: r.Source, Provider: r.Provider,
		Verdict: r.Verdict, Reason: r.Reason, Outcome: r.Outcome, DuplicateOf: r.DuplicateOf, EventID: r.EventID, EventType: r.EventType,
		Type: r.Type, OrderID: r.OrderID, PaymentID: r.PaymentID, Tenant: r.Tenant, RequestID: r.RequestID, IdempotencyKey: r.IdempotencyKey,
		Livemode: r.Livemode, Status: r.Status, AmountMinor: r.AmountMinor, Currency: r.Currency, RemoteIP: r.RemoteIP, Method: r.Method,
		Path: r.Path, Size: r.Size})
	if len(f.batch) < parquetBatch {
		return nil
	}
	return f.flush()
}

func (f *parquetFile) flush() error {
	_, err := f.w.Write(f.batch)
	f.batch = f.batch[:0]
	return err
}

func (f *parquetFile) close() error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.w.Close()
}

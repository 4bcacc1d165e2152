// Command consumer shows how to book payment events exactly once: it reads the topics,
// writes every captured payment into a ledger keyed by ce_id, and commits the offset only
// after the ledger is on disk. Kafka delivers at least once, so a message may come again
// after a crash; the ledger's key makes that harmless.
//
//	go run ./examples/consumer -brokers 127.0.0.1:9092 -topics webhooks.stripe,webhooks.liqpay -ledger ledger.ndjson
//
// In a real service the ledger is a table with ce_id as its primary key, written in the
// transaction that does the booking.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"

	"penstock/event"
)

// booking is a line of the ledger.
type booking struct {
	ID       string `json:"ce_id"`
	Provider string `json:"provider"`
	OrderID  string `json:"order_id"`
	Minor    int64  `json:"minor"`
	Currency string `json:"currency"`
}

type ledger struct {
	f      *os.File
	booked map[string]bool
}

func openLedger(path string) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	l := &ledger{f: f, booked: map[string]bool{}}
	whole := int64(0)
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // what has no newline was torn by a crash and never committed: it is written again
		}
		var b booking
		if err == nil {
			err = json.Unmarshal(line, &b)
		}
		if err != nil {
			return nil, fmt.Errorf("%s at byte %d: %w", path, whole, err)
		}
		l.booked[b.ID] = true
		whole += int64(len(line))
	}
	if err := f.Truncate(whole); err != nil {
		return nil, err
	}
	_, err = f.Seek(whole, io.SeekStart)
	return l, err
}

// book is idempotent, and durable when it returns.
func (l *ledger) book(b booking) error {
	if l.booked[b.ID] {
		return nil
	}
	line, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if _, err := l.f.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := l.f.Sync(); err != nil {
		return err
	}
	l.booked[b.ID] = true
	return nil
}

func header(m *kafka.Message, name string) string {
	for _, h := range m.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

func handle(l *ledger, m *kafka.Message) error {
	if header(m, "ce_replay") != "" {
		return nil // an operator published it again on purpose; this service wants no replays
	}
	var e event.Event
	if err := json.Unmarshal(m.Value, &e); err != nil {
		return fmt.Errorf("topic %s partition %d offset %d: %w", m.Topic, m.Partition, m.Offset, err)
	}
	if e.Type != "payment.captured" {
		return nil
	}
	if e.NeedsFetch || e.Payment == nil || e.Payment.Amount == nil {
		// The provider did not prove the sum: ask its API before booking.
		log.Printf("%s: ask %s about delivery %s before booking it", header(m, "ce_id"), e.Provider, header(m, "ce_deliveryid"))
		return nil
	}
	b := booking{ID: header(m, "ce_id"), Provider: e.Provider, Minor: e.Payment.Amount.Minor, Currency: e.Payment.Amount.Currency}
	if e.Payment.OrderID != nil {
		b.OrderID = *e.Payment.OrderID
	}
	return l.book(b)
}

func run(ctx context.Context) error {
	brokers := flag.String("brokers", "127.0.0.1:9092", "Kafka brokers, by comma")
	topics := flag.String("topics", "webhooks.stripe", "topics, by comma")
	group := flag.String("group", "bookkeeping", "consumer group")
	path := flag.String("ledger", "ledger.ndjson", "where captured payments are booked")
	flag.Parse()
	l, err := openLedger(*path)
	if err != nil {
		return err
	}
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: strings.Split(*brokers, ","), GroupTopics: strings.Split(*topics, ","), GroupID: *group,
		StartOffset:    kafka.FirstOffset, // a new group begins with what is there
		SessionTimeout: 10 * time.Second,  // how long a dead member's partitions wait for another
	})
	defer r.Close()
	for {
		m, err := r.FetchMessage(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := handle(l, &m); err != nil {
			return err // not committed: it comes again after a restart
		}
		if err := r.CommitMessages(ctx, m); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

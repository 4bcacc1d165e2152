package forward

import (
	"errors"
	"time"

	"go.uber.org/zap"
)

// named gives what a log line says of an event, so that it can be found: never its body.
func (ev *parcel) named(more ...zap.Field) []zap.Field {
	list := make([]zap.Field, 0, 4+len(more))
	if ev.source != nil {
		list = append(list, zap.String("source", ev.source.name))
	}
	list = append(list, zap.String("delivery", ev.delivery))
	if ev.fields.OrderID != "" {
		list = append(list, zap.String("order_id", ev.fields.OrderID))
	}
	return append(list, more...)
}

// Stage is what a stage of the pump did with a batch, for whoever traces; see package trace,
// whose type this is. All are aliases of one plain struct: no package imports another.
type Stage = struct {
	Name       string
	Start, End time.Time
	Records    int
	Bytes      int64
	Err        error
	Topic      string
	Links      []string
}

// maxLinks bounds the traces that one batch is linked to; it may carry thousands of events.
const maxLinks = 32

// stage begins a stage that many events go through at once. What it gives ends it.
func (p *Pump) stage(name string, records int) func(bytes int64, err error) {
	if p.o.Trace == nil {
		return untraced
	}
	start := time.Now()
	return func(bytes int64, err error) {
		p.o.Trace(Stage{Name: name, Start: start, End: time.Now(), Records: records, Bytes: bytes, Err: err})
	}
}

func untraced(int64, error) {}

// traceRead tells of what was read from the log and made into events.
func (p *Pump) traceRead(b *readBatch) {
	s := Stage{Name: "forward.normalize", Start: b.began, End: time.Now(), Records: len(b.events)}
	for _, ev := range b.events {
		s.Bytes += ev.size
	}
	p.o.Trace(s)
}

// traceProduce tells of a batch that Kafka answered, or did not.
func (pt *partition) traceProduce(start time.Time, group []*Message, res *result) {
	s := Stage{Name: "forward.produce", Start: start, End: time.Now(), Records: len(group), Topic: pt.t.name, Err: res.cause}
	if res.means == gone && s.Err == nil {
		s.Err = errors.New("the producer was stopped")
	}
	for _, m := range group {
		s.Bytes += int64(len(m.Key) + len(m.Value))
		for _, h := range m.headers() {
			if h.Key == headerTrace && len(s.Links) < maxLinks {
				s.Links = append(s.Links, string(h.Value))
			}
		}
	}
	pt.p.o.Trace(s)
}

// headerTrace carries the trace of whoever sent the delivery to whoever consumes its event.
const headerTrace = "traceparent"

// validTrace says whether a traceparent is what W3C's recommendation says: version, trace,
// parent and flags in lower case hexadecimal, neither id zero. A later version may say more
// behind them.
func validTrace(s string) bool {
	if len(s) < 55 || len(s) > maxTraceparent || s[:2] == "ff" || (s[:2] == "00" && len(s) != 55) || (len(s) > 55 && s[55] != '-') {
		return false
	}
	for i := range s {
		c := s[i]
		switch {
		case i == 2 || i == 35 || i == 52:
			if c != '-' {
				return false
			}
		case i < 55 && (c < '0' || c > '9') && (c < 'a' || c > 'f'), c <= ' ' || c > '~':
			return false
		}
	}
	return s[3:35] != "00000000000000000000000000000000" && s[36:52] != "0000000000000000"
}

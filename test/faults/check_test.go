package faults

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// verdict is what the equations came to.
type verdict struct {
	r       *run
	lost    int
	repeats int
	events  int
	said    map[string]int
}

// wrong notes a broken equation; of each kind the first few are printed whole.
func (v *verdict) wrong(kind, format string, args ...any) {
	if v.said[kind]++; v.said[kind] <= 5 {
		v.r.t.Errorf("%s: %s", kind, fmt.Sprintf(format, args...))
	}
}

// archived is a line of `penstock archive export --outcomes`.
type archived struct {
	Kind     string
	Seq      uint64
	ID       string
	Source   string
	Verdict  string
	Body     []byte `json:"body_b64"`
	Delivery uint64 `json:"delivery_seq"`
	Outcome  string
	Of       string
	Topic    string
	Received time.Time `json:"received_at"`
	At       time.Time // of the outcome
	// where it was published
	Partition *int
	Offset    *int64
}

// record is one Kafka record as kcat prints it.
type record struct {
	Topic     string   `json:"topic"`
	Partition int      `json:"partition"`
	Offset    int64    `json:"offset"`
	Headers   []string `json:"headers"`
	Key       string   `json:"key"`
	Payload   string   `json:"payload"`
}

func (r *record) header(name string) string {
	for i := 0; i+1 < len(r.Headers); i += 2 {
		if r.Headers[i] == name {
			return r.Headers[i+1]
		}
	}
	return ""
}

// change is which change of its entity a record tells, as a digit.
func change(r *record) byte {
	tok := tokens.FindString(r.Payload)
	return tok[len(tok)-1]
}

type place struct {
	topic     string
	partition int
	offset    int64
}

var tokens = regexp.MustCompile(`flt-[a-z0-9]+-\d{7,8}-\d`)

// check compares the client's log, the archive and Kafka.
func check(r *run) *verdict {
	v := &verdict{r: r, said: map[string]int{}}
	rows, err := export(r.g)
	if err != nil {
		r.t.Error(err)
		return v
	}
	records, err := consume(r)
	if err != nil {
		r.t.Error(err)
		return v
	}
	for _, w := range r.load.wrong {
		v.wrong("answer", "%s", w)
	}
	byPlace := v.kafka(records)
	v.archive(rows, byPlace)
	for kind, n := range v.said {
		if n > 5 {
			r.t.Errorf("%s: %d in all", kind, n)
		}
	}
	if len(records) == 0 || r.load.acks == 0 {
		r.t.Error("nothing was sent: the run proves nothing")
	}
	return v
}

// kafka checks that every acked delivery is there, unaltered, once, in its key's order,
// and nothing else.
func (v *verdict) kafka(records []record) map[place]*record {
	byPlace := map[place]*record{}
	first := map[string]*record{}
	step := map[*entity]*record{} // newest change seen of an entity; one key is in one partition
	for i := range records {
		rec := &records[i]
		byPlace[place{rec.Topic, rec.Partition, rec.Offset}] = rec
		tok := tokens.FindString(rec.Payload)
		t := v.r.load.log[tok]
		if t == nil {
			v.wrong("stranger", "a record that nobody sent at %s/%d/%d: %.200s", rec.Topic, rec.Partition, rec.Offset, rec.Payload)
			continue
		}
		if !strings.Contains(rec.Payload, t.d.payload) || !strings.HasSuffix(rec.Topic, "."+t.d.source) {
			v.wrong("altered", "%s at %s/%d/%d is not what was sent: %.300s", tok, rec.Topic, rec.Partition, rec.Offset, rec.Payload)
		}
		if was := first[tok]; was != nil {
			v.repeats++
			same := was.header("ce_id") == rec.header("ce_id") && was.Key == rec.Key && was.Partition == rec.Partition
			v.wrong("repeat", "%s at %s/%d/%d and %d; deliveries %s and %s; same id, key and partition: %v; cause unknown", tok, rec.Topic,
				rec.Partition, was.Offset, rec.Offset, was.header("ce_deliveryid"), rec.header("ce_deliveryid"), same)
			continue
		}
		first[tok] = rec
		if t.d.source == "skyrimpay" {
			continue // each of its changes is an order of its own, so is the key
		}
		last := step[t.d.e]
		if last != nil && change(rec) < change(last) {
			v.wrong("order", "%s (%s) came after %s (%s), both of key %q, at %s/%d/%d and %d", tok, rec.header("ce_deliveryid"),
				tokens.FindString(last.Payload), last.header("ce_deliveryid"), rec.Key, rec.Topic, rec.Partition, rec.Offset, last.Offset)
			continue
		}
		step[t.d.e] = rec
	}
	v.events = len(first)
	for tok, t := range v.r.load.log {
		if first[tok] == nil && len(t.acked) > 0 {
			v.lost++
			v.wrong("lost", "%s was answered 2xx (%s) and is not in Kafka", tok, strings.Join(t.acked, ", "))
		}
	}
	return byPlace
}

// archive checks that every 2xx answer has its delivery with the bytes that were sent,
// and that every accepted delivery has one outcome which is true.
func (v *verdict) archive(rows []archived, byPlace map[place]*record) {
	byID, bySeq := map[string]*archived{}, map[uint64]*archived{}
	for i := range rows {
		if a := &rows[i]; a.Kind == "delivery" {
			if byID[a.ID] != nil {
				v.wrong("archive", "delivery %s is there twice", a.ID)
			}
			byID[a.ID], bySeq[a.Seq] = a, a
		}
	}
	for tok, t := range v.r.load.log {
		for _, id := range t.acked {
			a := byID[id]
			switch {
			case a == nil:
				v.lost++
				v.wrong("lost", "%s was answered 2xx as %s and is not in the archive", tok, id)
			case sha256.Sum256(a.Body) != t.sum || a.Source != t.d.source:
				v.wrong("altered", "%s is archived as %s with other bytes: %.200q", tok, id, a.Body)
			}
		}
	}
	for _, a := range byID {
		tok := tokens.FindString(string(a.Body))
		if t := v.r.load.log[tok]; t != nil && !bytes.Equal(a.Body, t.d.body) {
			v.wrong("altered", "%s: the archive has other bytes than were sent: %.200q", a.ID, a.Body)
		}
	}
	v.outcomes(rows, bySeq, byPlace)
}

func (v *verdict) outcomes(rows []archived, bySeq map[uint64]*archived, byPlace map[place]*record) {
	final := map[uint64]string{}
	for i := range rows {
		o := &rows[i]
		if o.Kind != "outcome" {
			continue
		}
		d := bySeq[o.Delivery]
		if d == nil {
			v.wrong("outcome", "of delivery %d, which is not in the archive", o.Delivery)
			continue
		}
		was := final[o.Delivery]
		if o.Outcome == "held" { // for the time being; what it waits for must come
			if was != "" {
				v.wrong("outcome", "delivery %s was %s and is held", d.ID, was)
			}
			continue
		}
		if was != "" && was != o.Outcome {
			v.wrong("outcome", "delivery %s is %s and %s", d.ID, was, o.Outcome)
		}
		final[o.Delivery] = o.Outcome
		switch o.Outcome {
		case "published":
			if o.Partition == nil || o.Offset == nil {
				v.wrong("outcome", "delivery %s is published nowhere", d.ID)
				continue
			}
			rec := byPlace[place{o.Topic, *o.Partition, *o.Offset}]
			if rec == nil || rec.header("ce_deliveryid") != d.ID {
				v.wrong("outcome", "delivery %s is not at %s/%d/%d, where its outcome says", d.ID, o.Topic, *o.Partition, *o.Offset)
			}
		case "duplicate":
		default:
			v.wrong("outcome", "delivery %s (%s) became %s", d.ID, d.Source, o.Outcome)
		}
	}
	for seq, d := range bySeq {
		if d.Verdict == "accepted" && final[seq] == "" {
			v.wrong("pending", "delivery %s was accepted and has no outcome", d.ID)
		}
	}
}

// export reads the archive with the gateway's own tool, as an auditor would.
func export(g *gateway) ([]archived, error) {
	cmd := exec.Command(g.bin, "archive", "export", g.archive, "--outcomes")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("archive export: %w %.1000s", err, stderr.String())
	}
	return decode[archived](out, "archive export")
}

// consume reads every topic from its beginning to its end with kcat, past the proxy.
func consume(r *run) (all []record, err error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Minute)
	defer cancel()
	listed, err := exec.CommandContext(ctx, "kcat", "-L", "-J", "-b", r.sv.kafka).Output()
	if err != nil {
		return nil, fmt.Errorf("kcat -L: %w", err)
	}
	var cluster struct{ Topics []struct{ Topic string } }
	if err := json.Unmarshal(listed, &cluster); err != nil {
		return nil, fmt.Errorf("kcat -L: %w", err)
	}
	for _, t := range cluster.Topics {
		if !strings.HasPrefix(t.Topic, r.prefix+".") {
			continue
		}
		out, err := exec.CommandContext(ctx, "kcat", "-C", "-b", r.sv.kafka, "-t", t.Topic, "-o", "beginning", "-e", "-q", "-J").Output()
		if err != nil {
			return nil, fmt.Errorf("kcat -C -t %s: %w", t.Topic, err)
		}
		rs, err := decode[record](out, "kcat's output of "+t.Topic)
		if err != nil {
			return nil, err
		}
		all = append(all, rs...)
	}
	return all, nil
}

func decode[T any](b []byte, what string) (out []T, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	for {
		var x T
		if err := dec.Decode(&x); err == io.EOF {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		out = append(out, x)
	}
}

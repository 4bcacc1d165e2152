package admin

import (
	"strconv"
	"time"

	"penstock/archive"
)

// step is one line of a delivery's timeline.
type step struct {
	Name      string    `json:"step"`
	At        time.Time `json:"at,omitzero"` // zero: not on record
	Text      string    `json:"text,omitempty"`
	Of        string    `json:"of,omitempty"` // another delivery that it speaks of
	Topic     string    `json:"topic,omitempty"`
	Partition *int32    `json:"partition,omitempty"`
	Offset    *int64    `json:"offset,omitempty"`
	Bad       bool      `json:"-"`
	Beside    string    `json:"-"` // when it was, where no time is kept of it
	After     string    `json:"-"` // since the receipt
}

// timeline tells what happened to a delivery, step by step.
func (d *detail) timeline(way archive.Steps) []step {
	steps := []step{{Name: "received", At: d.ReceivedAt, Text: d.Method + " " + d.Path + " from " + d.RemoteIP + ", " + size(d.Size)}}
	within := func(name string, after time.Duration, text string) {
		one := step{Name: name, Text: text}
		if after > 0 {
			one.At = d.ReceivedAt.Add(after)
		}
		steps = append(steps, one)
	}
	archived := "on stable storage, number " + strconv.FormatUint(d.Seq, 10)
	switch d.Verdict {
	case archive.Rejected.String():
		// Nobody waits for these: neither has a time that matters.
		steps = append(steps, step{Name: "refused", Bad: true, Text: d.Reason, Beside: "before its answer"},
			step{Name: "kept", Text: "in the quarantine, as evidence; not published", Beside: "beside its answer"})
	case archive.Challenge.String():
		within("verified", way.Verified, "a handshake or a ping of the provider")
		within("archived", way.Archived, archived)
		within("answered", way.Acked, "with what the provider asked for; there is nothing to publish")
	default:
		verified := "signature holds"
		if d.VerifiedBy != "" {
			verified += ": " + d.VerifiedBy
		}
		within("verified", way.Verified, verified)
		within("archived", way.Archived, archived)
		within("acked", way.Acked, "answered 2xx, after the sync")
	}
	steps = d.outcomeSteps(steps)
	for i := range steps[1:] {
		if one := &steps[1+i]; !one.At.IsZero() {
			one.After = "+" + took(one.At.Sub(d.ReceivedAt))
		}
	}
	return steps
}

// outcomeSteps are those with a record of their own.
func (d *detail) outcomeSteps(steps []step) []step {
	for i := range d.History {
		h := &d.History[i]
		one := step{Name: h.Outcome, At: h.At, Text: h.Reason, Of: h.Of}
		if h.Events > 1 {
			one.Text = "event " + strconv.Itoa(h.Event+1) + " of " + strconv.Itoa(h.Events) + " " + one.Text
		}
		switch h.Outcome {
		case archive.Published.String():
			if h.Replay == "" && h.Of == "" {
				steps = append(steps, step{Name: "deduplicated", At: h.DeduplicatedAt, Text: "no twin was published before"})
			}
			one.Topic, one.Partition, one.Offset = h.Topic, &h.Partition, &h.Offset
			one.Text += " to " + h.Topic + "/" + strconv.Itoa(int(h.Partition)) + "@" + strconv.FormatInt(h.Offset, 10)
			if h.Replay != "" {
				one.Name = "replayed"
				one.Text += ", job " + h.Replay
			}
		case archive.Duplicate.String():
			one.Name = "deduplicated"
			one.Text += " its twin was published, so it was not"
		case archive.Dead.String():
			one.Bad = true
			one.Text += ": " + deadWords[h.Reason]
		}
		steps = append(steps, one)
	}
	return steps
}

// deadWords say why an event could not be published.
var deadWords = map[string]string{
	"unreadable":       "the definition cannot read it; its bytes are kept",
	"too_large":        "it is larger than the topic takes, and admin.public_url, where a pointer would lead to, is not set",
	"refused_by_kafka": "the broker refuses the record for what it is",
	"archive_damaged":  "its stored record cannot be read any more",
	"no_event":         "it carries no event",
}

package forward

import (
	"cmp"
	"errors"

	"penstock/archive"
	"penstock/provider"
)

// Previewed is one event of a delivery as it is published, for people to look at.
type Previewed struct {
	Topic   string // "" where routes choose it: the outcome names it
	Key     string
	Headers []Header
	Value   []byte // JSON, without the payload
	// Payload is what Value carries as payload or payload_base64: the provider's document,
	// decoded, with card numbers and secret fields masked. Masked says where.
	Payload     []byte
	PayloadJSON bool
	Masked      []string
	Part        bool     // Payload is this event's part of the body, not all of it
	Problems    []string // what could not be read exactly
}

// maxPreviewed bounds the events of one delivery that are looked at.
const maxPreviewed = 20

// Preview renders a delivery's events as the pump would now, and publishes nothing. Of many
// events it gives the first; events is how many there are.
func Preview(d *archive.Delivery, info *SourceInfo) (out []Previewed, events int, err error) {
	if info == nil || info.Definition == nil {
		return nil, 0, errors.New("there is no definition to read it by")
	}
	evs, err := readEvents(info, d)
	if err != nil {
		return nil, 0, err
	}
	for i := range evs[:min(len(evs), maxPreviewed)] {
		e := &evs[i]
		x := rendering{d: d, info: info, e: e, typ: typeOf(info, e), verified: d.VerifiedBy, bare: true}
		topic := ""
		if info.Routes == nil {
			topic = topicFor(info.Topic, d, info, e)
		}
		m := x.render(topic)
		out = append(out, Previewed{Topic: topic, Key: cmp.Or(keyFor(info.Key, d, info, e), string(m.Key)), Headers: m.headers(), Value: m.Value,
			Payload: e.Payload, PayloadJSON: e.PayloadJSON, Masked: e.Masked, Part: e.PayloadItem, Problems: e.Problems})
	}
	return out, len(evs), nil
}

// Document is what a delivery carries, decoded and unmasked; nil where it is no JSON.
func Document(d *archive.Delivery, info *SourceInfo) []byte {
	if info == nil {
		return nil
	}
	reader, ok := info.Definition.(interface {
		Decoded(r *provider.Request) (doc []byte, isJSON bool, err error)
	})
	if !ok {
		return nil
	}
	doc, isJSON, err := reader.Decoded(request(d, info))
	if err != nil || !isJSON {
		return nil
	}
	return doc
}

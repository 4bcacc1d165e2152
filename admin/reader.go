package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"penstock/archive"
)

// Reading is a delivery as its definition reads it today.
type Reading struct {
	Events []ReadEvent // the first ones
	Total  int         // how many there are
	// Document is the whole document, decoded and unmasked, for an operator alone; nil where
	// it is no JSON.
	Document []byte
}

// ReadEvent is one event as it is published.
type ReadEvent struct {
	Topic   string // "" where routes choose it: the outcome names it
	Key     string
	Headers [][2]string
	Value   []byte // JSON, without the payload
	// Payload is the provider's document, decoded, with card numbers and the definition's
	// secret fields masked; Part: this event's part of it alone.
	Payload     []byte
	PayloadJSON bool
	Masked      []string // places that were masked
	Part        bool
	Problems    []string // what could not be read exactly
}

// Reader reads deliveries by their definitions, for people to look at.
type Reader interface {
	Read(ctx context.Context, d *archive.Delivery) (Reading, error)
}

// errNotMasked: what no definition can read, nobody can mask.
var errNotMasked = errors.New("it cannot be read by its definition, so nobody knows where card and personal data stand in it")

// masked gives a body as a viewer may see it: decoded, with card numbers and secret fields
// masked. The raw bytes are not given: a card number may be hidden in any encoding of them.
func (s *Server) masked(ctx context.Context, d *archive.Delivery) (doc []byte, places []string, err error) {
	if s.o.Reader == nil {
		return nil, nil, errNotMasked
	}
	r, err := s.o.Reader.Read(ctx, d)
	if err != nil {
		return nil, nil, errors.Join(errNotMasked, err)
	}
	return maskedOf(r)
}

func maskedOf(r Reading) (doc []byte, places []string, err error) {
	if len(r.Events) == 0 || r.Events[0].Payload == nil {
		return nil, nil, errNotMasked
	}
	first := &r.Events[0]
	if !first.Part {
		return first.Payload, first.Masked, nil
	}
	// A large batch: each event has its part. Together they are what a viewer may see.
	parts := make([]json.RawMessage, 0, len(r.Events))
	for i := range r.Events {
		if !r.Events[i].PayloadJSON {
			return nil, nil, errNotMasked
		}
		parts = append(parts, r.Events[i].Payload)
		places = append(places, r.Events[i].Masked...)
	}
	doc, err = json.Marshal(parts)
	return doc, places, err
}

// maskedBody answers a viewer's look at a body.
func (s *Server) maskedBody(w http.ResponseWriter, r *http.Request) *problem {
	d, err := s.o.Archive.Get(r.PathValue("id"))
	if err != nil {
		return s.failure(err)
	}
	doc, places, err := s.masked(r.Context(), d)
	if err != nil {
		return refuse(http.StatusForbidden, "body_masked", "the role viewer sees bodies masked; "+errNotMasked.Error())
	}
	bodyHeaders(w.Header(), d.ID, doc)
	w.Header().Set("Penstock-Masked", strings.Join(places[:min(len(places), maxMaskedHeader)], ","))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(doc) // the client is gone: nothing to do
	return nil
}

// maxMaskedHeader bounds the paths that an answer's header names.
const maxMaskedHeader = 20

// sameJSON reports whether two documents are the same but for blanks, so that they need not
// be shown twice.
func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
		return bytes.Equal(a, b)
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}

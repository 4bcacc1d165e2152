package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"penstock/archive"
)

// eventDoc is one event of a delivery as /api/v1/deliveries/{id}/events answers it.
type eventDoc struct {
	Topic   string          `json:"topic,omitempty"` // absent where routes choose it: the outcome names it
	Key     string          `json:"key"`
	Headers [][2]string     `json:"headers"`
	Value   json.RawMessage `json:"value"` // without the payload
	// The provider's document, decoded and masked as it is published: one of the two.
	Payload       json.RawMessage `json:"payload,omitempty"`
	PayloadBase64 []byte          `json:"payload_base64,omitempty"`
	Part          bool            `json:"part,omitempty"`
	Masked        []string        `json:"masked,omitempty"`
	Problems      []string        `json:"problems,omitempty"`
}

type eventsDoc struct {
	Events   []eventDoc      `json:"events"`
	Total    int             `json:"total"`
	Document json.RawMessage `json:"document,omitempty"`
}

// stored gives a delivery's record to those who may read it.
func (s *Server) stored(id string, who secretToken) (*archive.Delivery, *problem) {
	if who.role == Consumer {
		// By its row first: whether a body is damaged is told of its own sources alone.
		if row, err := s.o.Archive.Row(id); err == nil && !who.may(row.Source) {
			return nil, noDelivery(id)
		}
	}
	d, err := s.o.Archive.Get(id)
	if errors.Is(err, archive.ErrNotFound) || err == nil && !who.may(d.Source) {
		return nil, noDelivery(id)
	}
	if err != nil {
		return nil, s.failure(err)
	}
	return d, nil
}

// events answers what a delivery means: its events as they are published, and for an operator
// the decoded document.
func (s *Server) events(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Reader == nil {
		return notHere("reading deliveries")
	}
	d, p := s.stored(r.PathValue("id"), who)
	if p != nil {
		return p
	}
	reading, err := s.o.Reader.Read(r.Context(), d)
	if err != nil {
		return refuse(http.StatusConflict, "unreadable", "its definition cannot read it: "+err.Error())
	}
	out := eventsDoc{Events: make([]eventDoc, 0, len(reading.Events)), Total: reading.Total}
	for i := range reading.Events {
		e := &reading.Events[i]
		one := eventDoc{Topic: e.Topic, Key: e.Key, Headers: e.Headers, Value: e.Value, Part: e.Part, Masked: e.Masked, Problems: e.Problems}
		if one.Headers == nil {
			one.Headers = [][2]string{}
		}
		if e.PayloadJSON {
			one.Payload = e.Payload
		} else {
			one.PayloadBase64 = e.Payload
		}
		out.Events = append(out.Events, one)
	}
	if who.role == Operator {
		out.Document = reading.Document
	}
	return writeTagged(w, r, out, func() *problem {
		if who.role != Operator {
			return nil
		}
		return s.audit(r, actReadBody, d.ID, "") // a look at what it holds
	})
}

// measuredSource is a source with what the page shows of it.
type measuredSource struct {
	SourceInfo
	State         string           `json:"state"` // receiving, silent, never, paused, gone
	LastDelivery  string           `json:"last_delivery,omitempty"`
	LastAt        time.Time        `json:"last_received_at,omitzero"`
	Day           archive.CountRow `json:"day"` // deliveries of the last 24 hours
	Pending       int              `json:"pending"`
	AckP99        float64          `json:"ack_p99_seconds,omitempty"`         // since the start; absent: none was answered
	PublishLagP99 float64          `json:"publish_lag_p99_seconds,omitempty"` // of the last published ones
}

// withMeasures reads the parameter measured and answers the sources with what is measured of them.
func (s *Server) withMeasures(r *http.Request, list []SourceInfo) (any, *problem) {
	text := r.URL.Query().Get("measured")
	if text == "" {
		return list, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_parameter", fmt.Sprintf("measured: %q is neither true nor false", text))
	}
	if !on {
		return list, nil
	}
	out := make([]measuredSource, 0, len(list))
	for _, v := range s.viewSources(r.Context(), list) {
		m := measuredSource{SourceInfo: v.SourceInfo, State: v.State, Day: v.Day, Pending: v.Pending, AckP99: v.AckP99.Seconds(), PublishLagP99: v.LagP99.Seconds()}
		if v.Last != nil {
			m.LastDelivery, m.LastAt = v.Last.ID, v.Last.ReceivedAt
		}
		out = append(out, m)
	}
	return out, nil
}

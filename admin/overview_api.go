package admin

import (
	"net/http"

	"penstock/archive"
)

// overviewDoc is what the page's overview shows.
type overviewDoc struct {
	Attention []alert  `json:"attention"`
	Ready     bool     `json:"ready"`
	Reason    string   `json:"reason,omitempty"` // why it is not
	Degraded  []string `json:"degraded"`

	// Absent: they could not be counted, which is not none.
	Hour *archive.CountRow `json:"hour,omitempty"`
	Day  *archive.CountRow `json:"day,omitempty"`

	Busiest     []busySource  `json:"busiest"`
	LastRefused []archive.Row `json:"last_refused"`

	// Since the start; absent: none was.
	AckP50        float64 `json:"ack_p50_seconds,omitempty"`
	AckP99        float64 `json:"ack_p99_seconds,omitempty"`
	PublishLagP99 float64 `json:"publish_lag_p99_seconds,omitempty"`

	State *State `json:"state,omitempty"`
}

// busySource is a source's share of the last 24 hours.
type busySource struct {
	Source string `json:"source"`
	archive.CountRow
}

// overview answers what the page of that name shows; unknown paths stand in stats.
func (s *Server) overview(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	p := overviewPage{frame: frame{Alerts: s.alerts(r.Context())}}
	if err := s.lookOver(r.Context(), &p); err != nil {
		return s.failure(err)
	}
	d := overviewDoc{Attention: p.Alerts, Ready: p.Unready == "", Reason: p.Unready, Degraded: p.Degraded, Busiest: []busySource{}, LastRefused: []archive.Row{},
		AckP50: p.AckP50.Seconds(), AckP99: p.AckP99.Seconds(), PublishLagP99: p.LagP99.Seconds()}
	if d.Attention == nil {
		d.Attention = []alert{}
	}
	if d.Degraded == nil {
		d.Degraded = []string{}
	}
	if p.Counted {
		d.Hour = &p.Hour
	}
	if p.Histogram != nil {
		d.Day = &p.Day
	}
	for i := range p.Sources {
		d.Busiest = append(d.Busiest, busySource{p.Sources[i].Name, p.Sources[i].CountRow})
	}
	for i := range p.Refused {
		d.LastRefused = append(d.LastRefused, p.Refused[i].Row)
	}
	if p.Known {
		d.State = &p.State
	}
	writeJSON(w, http.StatusOK, d)
	return nil
}

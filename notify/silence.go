package notify

import (
	"fmt"
	"time"
)

// cadence is what is usual for a source: for each hour of the day, on working days and at
// weekends, the longest that anybody had to wait for a delivery by then. A source that is
// quiet at night is not missed at night, and is missed within minutes at noon. Two periods
// are kept and the older is dropped, so that what was usual long ago is forgotten.
type cadence struct {
	First  time.Time    `json:"first"`
	Last   time.Time    `json:"last"`
	Seen   int          `json:"seen"`
	Begun  time.Time    `json:"begun"`  // of the newer period
	Pauses [2][48]int32 `json:"pauses"` // seconds; the newer period first
}

const (
	cadencePeriod  = 14 * 24 * time.Hour
	cadenceLeast   = 24 * time.Hour // a source is judged when it was known for so long
	cadenceSeen    = 20             // and by so many deliveries
	maxCadences    = 5000
	longestLearned = 7 * 24 * time.Hour
)

func slot(t time.Time) int {
	t = t.UTC()
	if d := t.Weekday(); d == time.Saturday || d == time.Sunday {
		return 24 + t.Hour()
	}
	return t.Hour()
}

// heard takes in that a source delivered. The caller holds mu.
func (e *Engine) heard(ev *Event) {
	c := e.cadence[ev.Source]
	if c == nil {
		if len(e.cadence) >= maxCadences {
			return
		}
		c = &cadence{First: ev.At, Begun: ev.At, Last: ev.At}
		e.cadence[ev.Source] = c
	}
	c.Seen++
	if !ev.At.After(c.Last) {
		return
	}
	since := c.Last
	if since.Before(e.started) && ev.At.After(e.started) {
		since = e.started // while the gateway was down nobody could deliver
	}
	// What somebody was woken for is not usual from then on.
	if !e.missed(ev.Source) {
		c.learn(since, ev.At)
	}
	c.Last = ev.At
}

// missed says whether a rule is firing for the source's silence.
func (e *Engine) missed(source string) bool {
	for _, r := range e.rules {
		if r.When == WhenSilence && r.state.Alerts[source] != nil {
			return true
		}
	}
	return false
}

// learn notes the pause between two deliveries in every hour that it reached into.
func (c *cadence) learn(from, to time.Time) {
	if to.Sub(c.Begun) >= cadencePeriod {
		c.Pauses[1], c.Pauses[0], c.Begun = c.Pauses[0], [48]int32{}, to
	}
	if to.Sub(from) > longestLearned {
		return
	}
	for end := from; end.Before(to); {
		at := end
		if end = at.Truncate(time.Hour).Add(time.Hour); end.After(to) {
			end = to
		}
		p := &c.Pauses[0][slot(at)]
		*p = max(*p, 1, int32(end.Sub(from)/time.Second)) // 0 is an hour that nobody watched
	}
}

// usual is the longest pause that was seen by this hour, 0 where nobody has watched at such
// an hour yet; of the neighbours too, so that a source that begins its day a little later
// is not missed.
func (c *cadence) usual(now time.Time) time.Duration {
	most := c.at(now)
	if most > 0 {
		most = max(most, c.at(now.Add(-time.Hour)), c.at(now.Add(time.Hour)))
	}
	return time.Duration(most) * time.Second
}

// at is the longest pause of one hour. The first weekend goes by the working days.
func (c *cadence) at(t time.Time) int32 {
	i := slot(t)
	if most := max(c.Pauses[0][i], c.Pauses[1][i]); most > 0 {
		return most
	}
	i = (i + 24) % 48
	return max(c.Pauses[0][i], c.Pauses[1][i])
}

func (e *Engine) judgeSilence(r *rule, now time.Time) {
	for source, c := range e.cadence {
		if !r.about(source) || c.Seen < cadenceSeen || now.Sub(c.First) < cadenceLeast {
			continue
		}
		since := c.Last
		if since.Before(e.started) {
			since = e.started
		}
		quiet := now.Sub(since)
		usual := c.usual(now)
		if usual == 0 {
			continue
		}
		limit := max(r.Floor, time.Duration(float64(usual)*r.Factor))
		on := quiet > limit
		// A restart says nothing about a source that was missed before it.
		off := !on && c.Last.After(e.firingSince(r, source))
		e.set(r, source, now, on, off, 1, func() string {
			return fmt.Sprintf("%s: nothing came for %s; %s is the longest that is usual at this hour", source, human(now.Sub(c.Last)), human(usual))
		})
	}
}

func (e *Engine) firingSince(r *rule, source string) time.Time {
	if a := r.state.Alerts[source]; a != nil {
		return a.Since
	}
	return time.Time{}
}

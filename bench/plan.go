package main

import (
	"fmt"
	"slices"
)

// cell is one setting that candidates are measured in.
type cell struct {
	name       string
	traffic    traffic
	conns      int
	candidates []string
	// perSecond gives the rate of an open loop out of what was measured before; nil: a
	// closed loop.
	perSecond func(candidate string, before []row) float64
}

// part is a table of the report.
type part struct {
	name  string
	cells []cell
}

func plan(o *options) (out []part) {
	plain := traffic{Size: o.size}
	most := slices.Max(o.conns)
	mid := min(most, 64)
	var byConns, bySize, byTraffic, growth, latency []cell
	for _, n := range o.conns {
		byConns = append(byConns, cell{name: fmt.Sprintf("%d connections", n), traffic: plain, conns: n, candidates: []string{bare, mac, edge, ack, full}})
	}
	for _, size := range []int{1 << 10, 10 << 10, 100 << 10} {
		bySize = append(bySize, cell{name: fmt.Sprintf("%d KiB", size>>10), traffic: traffic{Size: size}, conns: mid, candidates: []string{mac, ack, full}})
	}
	byTraffic = []cell{
		{name: "plain", traffic: plain, conns: mid, candidates: []string{mac, ack, full}},
		{name: "three providers", traffic: traffic{Size: o.size, Mixed: true}, conns: mid, candidates: []string{ack, full}},
		{name: "30 % duplicates", traffic: traffic{Size: o.size, Duplicates: 0.3}, conns: mid, candidates: []string{ack, full}},
		{name: "80 % wrong signatures", traffic: traffic{Size: o.size, Bad: 0.8}, conns: mid, candidates: []string{mac, ack, full}},
	}
	// Nothing else differs: how the cost of one delivery grows with what is configured and kept.
	for _, g := range []cell{
		{name: "1 source", traffic: plain},
		{name: "100 sources", traffic: traffic{Size: o.size, Sources: 100}},
		{name: "1000 sources", traffic: traffic{Size: o.size, Sources: 1000}},
		{name: "8 secrets, the last signs", traffic: traffic{Size: o.size, Secrets: 8}},
		{name: fmt.Sprintf("%d deliveries kept", o.records), traffic: traffic{Size: o.size, Records: o.records}},
	} {
		g.conns, g.candidates = mid, []string{ack, full}
		if g.traffic.Records > 0 {
			g.candidates = []string{ack} // with a sink, all that is kept would be published first
		}
		growth = append(growth, g)
	}
	for _, share := range []float64{0.25, 0.5, 0.75} {
		latency = append(latency, cell{name: fmt.Sprintf("%.0f %% of capacity", share*100), traffic: plain, conns: min(most, 256), candidates: []string{mac, ack, full},
			perSecond: func(candidate string, before []row) float64 {
				return share * capacity(candidate, min(most, 256), before)
			}})
	}
	for i, cells := range [][]cell{byConns, bySize, byTraffic, growth, latency} {
		if slices.Contains(o.parts, allParts[i]) {
			out = append(out, part{allParts[i], cells})
		}
	}
	return out
}

// capacity is the median rate of a candidate's closed loops at that many connections;
// of the full path what is published, for what is only acked piles up.
func capacity(candidate string, conns int, before []row) float64 {
	var v []float64
	for _, r := range before {
		if r.Candidate == candidate && r.Conns == conns && r.Part == "connections" {
			v = append(v, min(r.AckPerSec, r.FullPerSec))
		}
	}
	if len(v) == 0 {
		return 1000
	}
	return middle(v)
}

// run measures the part's cells round by round, the candidates of a cell in turn.
func (p *part) run(o *options, before []row) (rows []row, err error) {
	for round := range o.rounds {
		for i := range p.cells {
			c := &p.cells[i]
			for _, candidate := range c.candidates {
				if !slices.Contains(o.candidates, candidate) {
					continue
				}
				rate := 0.0
				if c.perSecond != nil {
					rate = c.perSecond(candidate, before)
				}
				for _, b := range o.builds(candidate, round) {
					r, err := measure(o, c, b.binary, candidate, round, rate)
					if err != nil {
						return rows, fmt.Errorf("%s, %s: %w", candidate, c.name, err)
					}
					r.Part, r.Candidate = p.name, candidate+b.mark
					rows = append(rows, r)
				}
			}
		}
	}
	return rows, nil
}

// build is a binary of penstock and what its candidates' names end with.
type build struct{ binary, mark string }

// builds are those to measure of a candidate: this one and, of what penstock itself
// serves, the one of -against, which goes first in every other round.
func (o *options) builds(candidate string, round int) []build {
	bs := []build{{o.penstock, ""}}
	if o.against != "" && (candidate == ack || candidate == full) {
		bs = append(bs, build{o.against, other})
		if round%2 == 1 {
			slices.Reverse(bs)
		}
	}
	return bs
}

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// report prints a part as a table: medians with their spread, and the ratio to the
// fasthttp server with HMAC, paired within a round.
func report(name string, rows []row) {
	fmt.Printf("\n%s\n", name)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tcandidate\tacks/s [min..max]\tpublished/s\tindexed/s\tp50 ms\tp99 ms\tp99.9 ms\tserver us\tclient us\tredis us\tkafka us\tdisk KiB\tsyncs/s\trecords/sync\tsync ms\tRSS MiB\tacks ratio\tfull ratio\tCPU ratio")
	for _, cell := range distinct(rows, func(r row) string { return r.Cell }) {
		in := filter(rows, func(r row) bool { return r.Cell == cell })
		base := filter(in, func(r row) bool { return r.Candidate == mac })
		for _, c := range distinct(in, func(r row) string { return r.Candidate }) {
			line(w, cell, c, filter(in, func(r row) bool { return r.Candidate == c }), base)
		}
	}
	w.Flush()
}

func line(w *tabwriter.Writer, cell, candidate string, rs, base []row) {
	med := func(f func(row) float64) float64 { return middle(values(rs, f)) }
	acks := values(rs, func(r row) float64 { return r.AckPerSec })
	published := "-"
	if strings.HasPrefix(candidate, full) {
		published = fmt.Sprintf("%.0f", med(func(r row) float64 { return r.FullPerSec }))
	}
	indexed := "-"
	if strings.HasPrefix(candidate, full) || strings.HasPrefix(candidate, ack) {
		indexed = fmt.Sprintf("%.0f", med(func(r row) float64 { return r.IndexedPerSec }))
	}
	fmt.Fprintf(w, "%s\t%s\t%.0f [%.0f..%.0f]\t%s\t%s\t%.2f\t%.2f\t%.2f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f\t%.1f\t%.2f\t%.0f\t%s\t%s\t%s\n", cell, candidate,
		middle(acks), slices.Min(acks), slices.Max(acks), published, indexed,
		med(func(r row) float64 { return ms(r.P50) }), med(func(r row) float64 { return ms(r.P99) }), med(func(r row) float64 { return ms(r.P999) }),
		med(func(r row) float64 { return r.ServerUS }), med(func(r row) float64 { return r.ClientUS }), med(func(r row) float64 { return r.RedisUS }),
		med(func(r row) float64 { return r.KafkaUS }), med(func(r row) float64 { return r.DiskKiB }), med(func(r row) float64 { return r.Syncs }),
		med(func(r row) float64 { return r.PerSync }), med(func(r row) float64 { return r.SyncMS }), med(func(r row) float64 { return r.RSSMiB }),
		ratio(rs, base, func(r, b row) float64 { return r.AckPerSec / b.AckPerSec }),
		ratio(rs, base, func(r, b row) float64 { return r.FullPerSec / b.AckPerSec }),
		ratio(rs, base, func(r, b row) float64 { return r.ServerUS / b.ServerUS }))
	for _, r := range rs {
		if r.Wrong > 0 {
			fmt.Fprintf(w, "\t\t%d answers were not what they had to be in round %d\n", r.Wrong, r.Round)
		}
	}
}

// ratio is the median of the ratios within the rounds.
func ratio(rs, base []row, f func(r, b row) float64) string {
	if len(base) != len(rs) {
		return "-"
	}
	var v []float64
	for i := range rs {
		v = append(v, f(rs[i], base[i]))
	}
	return fmt.Sprintf("%.2f", middle(v))
}

func filter(rows []row, keep func(row) bool) (out []row) {
	for _, r := range rows {
		if keep(r) {
			out = append(out, r)
		}
	}
	return out
}

func distinct(rows []row, f func(row) string) (out []string) {
	for _, r := range rows {
		if v := f(r); !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

func values(rs []row, f func(row) float64) (out []float64) {
	for _, r := range rs {
		out = append(out, f(r))
	}
	return out
}

func middle(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

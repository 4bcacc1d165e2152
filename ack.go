package main

import (
	"time"

	"penstock/config"
	"penstock/ingest"
	"penstock/verify"
)

// later makes the answers of those sources wait whose configuration says so. list is made
// of conf's sources, in their order.
func (p *program) later(conf *config.Config, list []ingest.Source) {
	var topics []string
	for i := range list {
		s := &conf.Sources[i]
		l := &ingest.Later{Deadline: s.Ack.Deadline, MaxWaiting: s.Ack.MaxWaiting}
		switch {
		case s.Ack.After == config.AfterPublished && p.pump != nil:
			topics = append(topics, topicOf(s, conf.Forward, s.Provider))
			l.Delivered = func(seq uint64, until time.Time, stop <-chan struct{}) (*verify.Reply, bool) {
				_, ok := p.pump.Delivered(seq, until, stop)
				return nil, ok
			}
		case s.Ack.After != config.AfterArchived:
			// The sink comes with the next start; until then nobody can promise it.
			l.Delivered = func(uint64, time.Time, <-chan struct{}) (*verify.Reply, bool) { return nil, false }
		default:
			continue
		}
		list[i].Later = l
	}
	if p.pump != nil && len(topics) > 0 {
		p.pump.Await(topics)
	}
}

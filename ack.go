package main

import (
	"strings"
	"time"

	"penstock/config"
	"penstock/forward"
	"penstock/ingest"
	"penstock/verify"
)

// later makes the answers of those sources wait whose configuration says so. list is made
// of conf's sources, in their order.
func (p *program) later(conf *config.Config, list []ingest.Source) {
	p.watchTopics(conf)
	var topics []string
	upstream := false
	for i := range list {
		s := &conf.Sources[i]
		var delivered func(seq uint64, until time.Time, stop <-chan struct{}) (*verify.Reply, bool)
		switch kafka, http := p.kafkaPump(), p.httpPump(); {
		case s.Ack.After == config.AfterArchived:
			continue
		case s.Ack.After == config.AfterPublished && kafka != nil && conf.Forward.Kafka != nil:
			topics = append(topics, topicsOf(s, conf.Forward)...)
			delivered = func(seq uint64, until time.Time, stop <-chan struct{}) (*verify.Reply, bool) {
				_, ok := kafka.Delivered(seq, until, stop)
				return nil, ok
			}
		case s.Ack.After == config.AfterUpstream && http != nil:
			upstream = true
			delivered = func(seq uint64, until time.Time, stop <-chan struct{}) (*verify.Reply, bool) {
				return upstreamReply(http.Delivered(seq, until, stop))
			}
		default: // the sink comes with the next start; until then nobody can promise it
			delivered = func(uint64, time.Time, <-chan struct{}) (*verify.Reply, bool) { return nil, false }
		}
		list[i].Later = &ingest.Later{Delivered: delivered, Deadline: s.Ack.Deadline, MaxWaiting: s.Ack.MaxWaiting}
	}
	if len(topics) > 0 {
		p.pump.Await(topics)
	}
	if upstream {
		p.httpPump().Await(nil)
	}
}

// topicsOf are the topics that the source's events go to; what only an event fills in is
// left as it stands.
func topicsOf(s *config.Source, f *config.Forward) []string {
	topics := []string{topicOf(s, f, s.Provider)}
	for _, r := range routesOf(s, f) {
		if !r.Drop {
			topics = append(topics, strings.NewReplacer("{provider}", s.Provider, "{source}", s.Name).Replace(r.Topic))
		}
	}
	return topics
}

// watchTopics has the broker asked for settings of the topics that lose events.
func (p *program) watchTopics(conf *config.Config) {
	pump := p.kafkaPump()
	if pump == nil || conf.Forward == nil || conf.Forward.Kafka == nil {
		return
	}
	topics := []string{conf.Forward.Kafka.DeadLetterTopic}
	for i := range conf.Sources {
		if s := &conf.Sources[i]; s.Forward.Kafka {
			topics = append(topics, topicsOf(s, conf.Forward)...)
		}
	}
	pump.Watch(topics)
}

func (p *program) kafkaPump() *forward.Pump {
	if p.pump != nil && p.pump.Kind() == forward.KindKafka {
		return p.pump
	}
	return nil
}

// upstreamReply is what the provider is told of what a target said. A redirect is nothing
// that a provider may follow: it counts as no answer. Of a repeat there is none: its twin
// was taken, and the provider's own words say so.
func upstreamReply(a *forward.Reply, ok bool) (*verify.Reply, bool) {
	if !ok || a == nil {
		return nil, ok
	}
	if a.Status < 200 || a.Status/100 == 3 || a.Status > 599 {
		return nil, false
	}
	return &verify.Reply{Status: a.Status, ContentType: a.ContentType, Body: a.Body}, true
}

package main

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"penstock/config"
	"penstock/fetch"
	"penstock/forward"
)

// defaultTarget is the name of forward.http. No source can be called so.
const defaultTarget = "_default"

// targetName is the HTTP target of a source; "" = it has none.
func targetName(s *config.Source, f *config.Forward) string {
	switch {
	case s.Forward.HTTP != nil:
		return s.Name
	case f.HTTP != nil:
		return defaultTarget
	}
	return ""
}

// targets are all HTTP targets of a configuration, nil where there is none.
func targets(conf *config.Config) (map[string]forward.HTTPTarget, error) {
	var out map[string]forward.HTTPTarget
	add := func(name string, h *config.HTTP) error {
		if h == nil {
			return nil
		}
		t, err := httpTarget(h)
		if err != nil {
			return fmt.Errorf("http target of %s: %w", name, err)
		}
		if out == nil {
			out = map[string]forward.HTTPTarget{}
		}
		out[name] = t
		return nil
	}
	if err := add(defaultTarget, conf.Forward.HTTP); err != nil {
		return nil, err
	}
	for i := range conf.Sources {
		if err := add(conf.Sources[i].Name, conf.Sources[i].Forward.HTTP); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func httpTarget(h *config.HTTP) (t forward.HTTPTarget, err error) {
	t = forward.HTTPTarget{URL: h.URL, Timeout: h.Timeout, Concurrency: h.Concurrency, RetryFor: h.RetryFor, MaxPause: h.MaxPause}
	for _, s := range h.Secrets {
		t.Secrets = append(t.Secrets, s.Reveal())
	}
	if t.TLS, err = clientTLS(h.TLS); err != nil {
		return t, err
	}
	var allowed []netip.Prefix
	if allowed, err = parsePrefixes(h.AllowAddresses); err != nil {
		return t, err
	}
	t.Dial = fetch.Dialer(allowed...).DialContext
	return t, nil
}

// buildPumps makes a pump for each kind of sink.
func (p *program) buildPumps(conf *config.Config, node string, reg *prometheus.Registry) error {
	to, err := targets(conf)
	if err != nil {
		return err
	}
	o := forward.Options{Archive: forward.FromArchive(p.archive), Dedupe: p.dedupe, Source: p.epochs.source, Start: forward.Start(conf.Forward.Start),
		Window: conf.Dedupe.Window, AdminURL: adminURL(conf), Node: node, KeepFor: keepFor(conf), PinBodies: conf.Archive.Retention.Size > 0, Selective: to != nil,
		DrainRate: float64(conf.Forward.DrainRate), Logger: p.log.Named("forward"), Registerer: reg, Trace: p.stage()}
	if k := conf.Forward.Kafka; k != nil {
		ko := o
		if ko.Kafka, err = kafkaOptions(k); err != nil {
			return fmt.Errorf("forward.kafka: %w", err)
		}
		ko.Kafka.Logger, ko.Kafka.Registerer = p.log.Named("kafka"), reg
		ko.Topic, ko.DeadLetterTopic = k.Topic, k.DeadLetterTopic
		ko.MaxBytes, ko.MaxEventSize = int64(k.MaxInFlightBytes), int(k.MaxMessageBytes)*9/10
		if p.pump, err = forward.New(ko); err != nil {
			return err
		}
		p.epochs.pumps[0].Store(p.pump)
	}
	// Without Kafka there is a pump to HTTP targets in any case: a reload may bring one.
	if to == nil && p.pump != nil {
		return nil
	}
	o.HTTP, o.Beside, o.Logger = &forward.HTTPOptions{Targets: to}, p.pump, p.log.Named("http")
	if conf.Forward.HTTP != nil {
		o.HTTP.Default = defaultTarget
	}
	pump, err := forward.New(o)
	if err != nil {
		return err
	}
	if p.pump == nil {
		p.pump = pump
	} else {
		p.beside = pump
	}
	p.epochs.pumps[1].Store(pump)
	return nil
}

// httpPump is the pump to HTTP targets; nil where there is none.
func (p *program) httpPump() *forward.Pump {
	if p.pump != nil && p.pump.Kind() == forward.KindHTTP {
		return p.pump
	}
	return p.beside
}

// reloadTargets puts the targets of a new configuration in force.
func (p *program) reloadTargets(next *config.Config) error {
	if next.Forward == nil {
		return nil
	}
	to, err := targets(next)
	if err != nil {
		return err
	}
	if p.httpPump() == nil {
		if to != nil {
			p.log.Warn("the first HTTP target wants a restart; until then nothing is sent there")
		}
		return nil
	}
	return p.httpPump().SetTargets(to)
}

// eachPump calls f for every pump.
func (p *program) eachPump(f func(*forward.Pump)) {
	for _, pump := range []*forward.Pump{p.pump, p.beside} {
		if pump != nil {
			f(pump)
		}
	}
}

// keep is the lowest seq that any sink needs.
func (p *program) keep() uint64 {
	seq := p.pump.Keep()
	if p.beside != nil {
		seq = min(seq, p.beside.Keep())
	}
	return seq
}

// waiting lists what waits in any sink; retention copies it forward.
func (p *program) waiting(from, to uint64) (seqs []uint64, ok bool) {
	var ask []func(from, to uint64) ([]uint64, bool)
	p.eachPump(func(pump *forward.Pump) { ask = append(ask, pump.Waiting) })
	return inAny(ask, from, to)
}

// inAny is what any of them lists; not ok where one cannot tell.
func inAny(ask []func(from, to uint64) ([]uint64, bool), from, to uint64) (seqs []uint64, ok bool) {
	for _, f := range ask {
		more, ok := f(from, to)
		if !ok {
			return nil, false
		}
		seqs = append(seqs, more...)
	}
	slices.Sort(seqs)
	return slices.Compact(seqs), true
}

// pause pauses or resumes a source for every sink.
func (p *program) pause(source string, on bool) (err error) {
	p.eachPump(func(pump *forward.Pump) {
		if err != nil {
			return
		}
		if on {
			err = pump.Pause(source)
		} else {
			err = pump.Resume(source)
		}
	})
	return err
}

// degraded says what of a sink is not as it should be.
func degraded(s forward.Stats) (out []string) {
	if s.Away {
		out = append(out, "kafka")
	}
	for topic, n := range s.MinInsync {
		if n < forward.SafeReplicas {
			out = append(out, fmt.Sprintf("answers wait for topic %s, and its min.insync.replicas is %d, not %d", topic, n, forward.SafeReplicas))
		}
	}
	for topic, risks := range s.Risks {
		for _, r := range risks {
			out = append(out, "topic "+topic+": "+r)
		}
	}
	for topic, reason := range s.Blocked {
		out = append(out, "topic "+topic+": "+reason)
	}
	return out
}

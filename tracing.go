package main

import (
	"context"
	"os"
	"time"

	"go.uber.org/zap"

	"penstock/cli"
	"penstock/config"
	"penstock/trace"
)

// openTracer gives what the stages are told to, nil where nobody traces.
func (p *program) openTracer(conf *config.Config) (func(trace.Stage), error) {
	if conf.Tracing == nil {
		return nil, nil
	}
	host, _ := os.Hostname() // a span without it is still one
	var err error
	p.tracer, err = trace.New(trace.Options{Endpoint: conf.Tracing.Endpoint, Sample: conf.Tracing.Sample, Version: cli.Version, Node: host, Logger: p.log.Named("trace")})
	return p.stage(), err
}

func (p *program) stage() func(trace.Stage) {
	if p.tracer == nil {
		return nil
	}
	return p.tracer.Stage
}

// traceGrace is what the last spans have; the process has its own time to end in.
const traceGrace = time.Second

func (p *program) closeTracer() {
	if p.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), traceGrace)
	defer cancel()
	if err := p.tracer.Close(ctx); err != nil {
		p.log.Warn("the last traces are not sent", zap.Error(err))
	}
}

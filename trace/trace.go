// Package trace exports what the stages of the pipeline did as OpenTelemetry spans. Only
// batches are told, never single deliveries, and only after they are done: a stage hands
// over one plain struct and knows nothing of this package.
package trace

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// Stage is what one stage did with one batch. It is an alias of a plain struct, as
// archive.Stage and forward.Stage are: none of the three imports another.
type Stage = struct {
	Name       string
	Start, End time.Time
	Records    int
	Bytes      int64
	Err        error
	Topic      string   // produce: where it went
	Links      []string // traceparents of what the batch carries
}

// Options of a Tracer.
type Options struct {
	Endpoint string  // OTLP over HTTP, such as http://127.0.0.1:4318
	Sample   float64 // share of the batches, 0 to 1
	Version  string
	Node     string
	Logger   *zap.Logger
}

// Tracer turns stages into spans and sends them in the background; what cannot be sent is
// dropped, and nobody waits for it.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   oteltrace.Tracer
}

// The bounds of what waits to be sent.
const (
	maxWaiting    = 2048
	exportEvery   = 2 * time.Second
	exportTimeout = 5 * time.Second
)

// New makes a tracer. It does not ask whether the endpoint is there.
func New(o Options) (*Tracer, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("tracing.endpoint: %q is no URL", o.Endpoint)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	exp, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTimeout(exportTimeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	res := resource.NewSchemaless(attribute.String("service.name", "penstock"), attribute.String("service.version", o.Version), attribute.String("service.instance.id", o.Node))
	p := sdk.NewTracerProvider(sdk.WithResource(res), sdk.WithSampler(sdk.TraceIDRatioBased(o.Sample)),
		sdk.WithBatcher(quiet{exp, o.Logger}, sdk.WithMaxQueueSize(maxWaiting), sdk.WithBatchTimeout(exportEvery), sdk.WithExportTimeout(exportTimeout)))
	return &Tracer{provider: p, tracer: p.Tracer("penstock")}, nil
}

// quiet logs what could not be sent; the library's own way is a global.
type quiet struct {
	sdk.SpanExporter
	log *zap.Logger
}

// ExportSpans sends spans.
func (q quiet) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := q.SpanExporter.ExportSpans(ctx, spans); err != nil {
		q.log.Warn("traces are not taken and are dropped", zap.Int("spans", len(spans)), zap.Error(err))
	}
	return nil
}

// Stage tells what a stage did. It never waits.
func (t *Tracer) Stage(s Stage) {
	options := []oteltrace.SpanStartOption{oteltrace.WithTimestamp(s.Start), oteltrace.WithNewRoot(),
		oteltrace.WithAttributes(attribute.Int("penstock.records", s.Records), attribute.Int64("penstock.bytes", s.Bytes))}
	if s.Topic != "" {
		options = append(options, oteltrace.WithSpanKind(oteltrace.SpanKindProducer),
			oteltrace.WithAttributes(attribute.String("messaging.system", "kafka"), attribute.String("messaging.destination.name", s.Topic)))
	}
	for _, tp := range s.Links {
		if sc, ok := parse(tp); ok {
			options = append(options, oteltrace.WithLinks(oteltrace.Link{SpanContext: sc}))
		}
	}
	_, span := t.tracer.Start(context.Background(), s.Name, options...)
	if s.Err != nil {
		span.SetStatus(codes.Error, s.Err.Error())
	}
	span.End(oteltrace.WithTimestamp(s.End))
}

// Close sends what waits, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// parse reads a W3C traceparent.
func parse(s string) (oteltrace.SpanContext, bool) {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return oteltrace.SpanContext{}, false
	}
	id, err1 := oteltrace.TraceIDFromHex(s[3:35])
	span, err2 := oteltrace.SpanIDFromHex(s[36:52])
	flags, err3 := strconv.ParseUint(s[53:55], 16, 8)
	sc := oteltrace.NewSpanContext(oteltrace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: oteltrace.TraceFlags(flags), Remote: true})
	return sc, err1 == nil && err2 == nil && err3 == nil
}

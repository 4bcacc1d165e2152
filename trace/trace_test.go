package trace

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver takes OTLP over HTTP.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	spans  []*otlp.Span
	path   string
	key    string            // the header that a collector lets senders in by
	labels map[string]string // of the resource
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{labels: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body := io.Reader(req.Body)
		if req.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		var in collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(b, &in)
		}
		if err != nil {
			t.Error(err)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.path, r.key = req.URL.Path, req.Header.Get("X-Api-Key")
		for _, rs := range in.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				r.labels[a.Key] = a.Value.GetStringValue()
			}
			for _, ss := range rs.ScopeSpans {
				r.spans = append(r.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// TestHeaders: OpenTelemetry's own variables name the headers that a collector wants.
func TestHeaders(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=let%20me%20in,x-other=1")
	r := newReceiver(t)
	tr, err := New(Options{Endpoint: r.URL, Sample: 1})
	if err != nil {
		t.Fatal(err)
	}
	tr.Stage(Stage{Name: "archive.commit", Start: time.Now(), End: time.Now()})
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.spans) != 1 || r.key != "let me in" {
		t.Errorf("%d spans came with the key %q", len(r.spans), r.key)
	}
}

// TestStages: what a stage did arrives as a span, with its times and links.
func TestStages(t *testing.T) {
	r := newReceiver(t)
	tr, err := New(Options{Endpoint: r.URL, Sample: 1, Version: "v1", Node: "gw-1"})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 11, 18, 12, 0, 0, 0, time.UTC)
	tr.Stage(Stage{Name: "archive.commit", Start: start, End: start.Add(3 * time.Millisecond), Records: 7, Bytes: 900})
	tr.Stage(Stage{Name: "forward.produce", Start: start, End: start.Add(time.Second), Records: 2, Topic: "webhooks.stripe", Err: errors.New("no leader"),
		Links: []string{parent, "garbage", strings.ReplaceAll(parent, "-", "_")}})
	if err := tr.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if r.path != "/v1/traces" || r.labels["service.name"] != "penstock" || r.labels["service.version"] != "v1" || r.labels["service.instance.id"] != "gw-1" {
		t.Errorf("%s, %v", r.path, r.labels)
	}
	if len(r.spans) != 2 {
		t.Fatalf("%d spans", len(r.spans))
	}
	commit, produce := r.spans[0], r.spans[1]
	if commit.Name != "archive.commit" || commit.StartTimeUnixNano != uint64(start.UnixNano()) || commit.EndTimeUnixNano-commit.StartTimeUnixNano != 3e6 ||
		commit.Attributes[0].Value.GetIntValue() != 7 || len(commit.ParentSpanId) != 0 || commit.Status.GetCode() != otlp.Status_STATUS_CODE_UNSET {
		t.Errorf("%v", commit)
	}
	if produce.Kind != otlp.Span_SPAN_KIND_PRODUCER || produce.Status.GetMessage() != "no leader" || len(produce.Links) != 1 {
		t.Fatalf("%v", produce)
	}
	if got := trace.TraceID(produce.Links[0].TraceId).String() + " " + trace.SpanID(produce.Links[0].SpanId).String(); got != "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331" {
		t.Errorf("linked to %s", got)
	}
	if string(commit.TraceId) == string(produce.TraceId) {
		t.Error("two batches are one trace")
	}
}

// TestNobodyThere: a collector that is away costs nothing but its spans.
func TestNobodyThere(t *testing.T) {
	tr, err := New(Options{Endpoint: "http://127.0.0.1:1", Sample: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * maxWaiting {
		tr.Stage(Stage{Name: "archive.commit", Start: time.Now(), End: time.Now()})
	}
	if err := tr.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestSample(t *testing.T) {
	r := newReceiver(t)
	tr, err := New(Options{Endpoint: r.URL + "/own/path"})
	if err != nil {
		t.Fatal(err)
	}
	tr.Stage(Stage{Name: "archive.commit", Start: time.Now(), End: time.Now(), Links: []string{parent}})
	if err := tr.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if len(r.spans) != 0 {
		t.Errorf("%d spans of a share of none", len(r.spans))
	}
	if _, err := New(Options{Endpoint: "127.0.0.1:4318"}); err == nil {
		t.Error("an endpoint that is no URL was taken")
	}
}

package main

import (
	"strings"
	"testing"

	"penstock/config"
	"penstock/forward"
)

// TestDegradedBySettings: what the broker says of its topics reaches who looks at the gateway.
func TestDegradedBySettings(t *testing.T) {
	got := strings.Join(degraded(forward.Stats{MinInsync: map[string]int{"safe": 2, "lone": 1},
		Risks: map[string][]string{"packed": {"cleanup.policy compact: it is"}}}), "\n")
	for _, want := range []string{"topic lone, and its min.insync.replicas is 1", "topic packed: cleanup.policy compact"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "safe") {
		t.Errorf("a safe topic is told:\n%s", got)
	}
}

// TestTopicsOf: the topics that are looked at are those that events go to.
func TestTopicsOf(t *testing.T) {
	f := &config.Forward{Kafka: &config.Kafka{Topic: "webhooks.{provider}"}, Routes: []config.Route{{Topic: "x.{source}"}, {Drop: true}, {Topic: "y.{type}"}}}
	got := strings.Join(topicsOf(&config.Source{Name: "shop", Provider: "stripe"}, f), " ")
	if got != "webhooks.stripe x.shop y.{type}" {
		t.Errorf("got %s", got)
	}
}

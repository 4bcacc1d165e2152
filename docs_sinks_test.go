package main

import (
	"strings"
	"testing"

	"penstock/config"
	"penstock/provider"
)

// TestSinkPages: the whole configurations that the pages show are ones that load.
func TestSinkPages(t *testing.T) {
	t.Setenv("STRIPE_WEBHOOK_SECRET", "whsec_0123456789abcdef")
	t.Setenv("GITHUB_WEBHOOK_SECRET", "0123456789abcdef")
	t.Setenv("HANDLER_SECRET", "0123456789abcdef")
	builtin, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, part := range strings.Split(read(t, "docs/http-sink.md"), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(part, "```")
		c, err := config.Parse("docs/http-sink.md", []byte(text), catalogue{builtin})
		if err != nil {
			t.Error(err)
			continue
		}
		if n++; c.Sources[0].Ack.After != config.AfterUpstream {
			t.Errorf("ack is %+v", c.Sources[0].Ack)
		}
	}
	if n != 2 {
		t.Errorf("%d configurations, want 2", n)
	}
	acks, err := config.Parse("docs/acks.md", []byte("archive: {dir: ./data}\nforward: {kafka: {brokers: [\"127.0.0.1:9092\"]}}\n"+
		between(read(t, "docs/acks.md"), "```yaml\n", "```")), catalogue{builtin})
	if err != nil || acks.Sources[0].Ack.After != config.AfterPublished {
		t.Error(err)
	}
}

func between(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}

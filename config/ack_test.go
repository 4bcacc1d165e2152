package config

import (
	"strings"
	"testing"
	"time"
)

const ackSource = "archive: {dir: ./data}\n%FORWARD%sources:\n  - name: gh\n    provider: github\n    credentials: {secrets: [0123456789abcdef]}\n%SOURCE%"

func ackConfig(forward, source string) []byte {
	return []byte(strings.NewReplacer("%FORWARD%", forward, "%SOURCE%", source).Replace(ackSource))
}

const kafkaForward = "forward: {kafka: {brokers: [\"127.0.0.1:9092\"]}}\n"

func TestAck(t *testing.T) {
	c, err := Parse("a.yaml", ackConfig(kafkaForward, "    ack: {after: published, deadline: 9s}\n"), providers())
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Sources[0].Ack; a.After != AfterPublished || a.Deadline != 9*time.Second || a.MaxWaiting != 1024 {
		t.Errorf("ack is %+v", a)
	}
	if c, err = Parse("a.yaml", ackConfig(kafkaForward, ""), providers()); err != nil || c.Sources[0].Ack.After != AfterArchived {
		t.Errorf("unset it is %+v (%v), want archived", c.Sources[0].Ack, err)
	}
}

func TestAckMistakes(t *testing.T) {
	f := func(forward, source, want string) {
		t.Helper()
		_, err := Parse("a.yaml", ackConfig(forward, source), providers())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s%s: got %v, want %s", forward, source, err, want)
		}
	}
	f("", "    ack: {after: published}\n", "a.yaml:6:18: sources[0].ack.after: published wants Kafka")
	f(kafkaForward, "    ack: {after: sent}\n", "a.yaml:7:18: sources[0].ack.after")
	f(kafkaForward, "    ack: {after: published, deadline: 1h}\n", "sources[0].ack.deadline")
	f(kafkaForward, "    ack: {then: published}\n", "sources[0].ack.then: unknown key")
	c, err := Parse("a.yaml", ackConfig(kafkaForward, "    ack: {deadline: 3s}\n"), providers())
	if err != nil || !strings.Contains(strings.Join(c.Warnings, "\n"), "sources[0].ack.deadline: has no effect") {
		t.Errorf("a deadline that nothing waits for: %v, warnings %q", err, c.Warnings)
	}
}

package config

import (
	"strings"
	"testing"
	"time"
)

func TestForwardHTTP(t *testing.T) {
	c, err := Parse("a.yaml", ackConfig("forward: {http: {url: \"https://h.example.com/x?y=1\", secrets: [0123456789abcdef, whsec_MDEyMzQ1Njc4OWFi]}}\n", "    ack: {after: upstream}\n"), providers())
	if err != nil {
		t.Fatal(err)
	}
	if h := c.Forward.HTTP; h.Timeout != 15*time.Second || h.RetryFor != 120*time.Hour || h.Concurrency != 8 || len(h.Secrets) != 2 || !c.Sources[0].Forward.Kafka {
		t.Errorf("%+v, source %+v", h, c.Sources[0].Forward)
	}
	c, err = Parse("a.yaml", ackConfig("", "    forward: {http: {url: \"http://127.0.0.1:9000\", allow_addresses: [127.0.0.1]}}\n"), providers())
	if err != nil || c.Forward == nil || c.Forward.Start != "oldest" || c.Forward.Kafka != nil || len(c.Warnings) != 0 {
		t.Errorf("a source's own target alone: %v, %+v, %q", err, c.Forward, c.Warnings)
	}
	if d := Diff(c, c); d != nil {
		t.Errorf("Diff of the same is %v", d)
	}
}

func TestForwardMistakes(t *testing.T) {
	f := func(forward, source, want string) {
		t.Helper()
		_, err := Parse("a.yaml", ackConfig(forward, source), providers())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s%s: got %v, want %s", forward, source, err, want)
		}
	}
	f("", "    ack: {after: upstream}\n", "a.yaml:6:18: sources[0].ack.after: upstream wants an HTTP target")
	f("forward: {start: now}\n", "", "a.yaml:2:10: forward.kafka: is missing")
	f("forward: {http: {timeout: 3s}}\n", "", "forward.http.url: is missing")
	f("forward: {http: {url: \"ftp://x\"}}\n", "", "a.yaml:2:23: forward.http.url")
	f("forward: {http: {url: \"https://user:word@h.example.com\"}}\n", "", "forward.http.url: holds a user name")
	f("forward: {http: {url: \"http://10.0.0.7/\"}}\n", "", "forward.http.url: 10.0.0.7 is no address of the public internet; if it is meant, add allow_addresses: [10.0.0.7]")
	f("forward: {http: {url: \"https://[::1]/\", allow_addresses: [127.0.0.0/8]}}\n", "", "forward.http.url: ::1 is no address")
	f("forward: {http: {url: \"https://h.example.com\", secrets: [whsec_not!base64]}}\n", "", "forward.http.secrets[0]: begins with whsec_")
	f("forward: {http: {url: \"https://h.example.com\", secrets: [short]}}\n", "", "forward.http.secrets[0]")
	f("forward: {http: {url: \"https://h.example.com\", tls: {cert: x.pem}}}\n", "", "forward.http.tls")
	f(kafkaForward, "    forward: {kafka: false}\n", "a.yaml:7:22: sources[0].forward.kafka: leaves the source without any sink")
	f(kafkaForward, "    forward: {kafka: false, http: {url: \"https://h.example.com\"}}\n    ack: {after: published}\n", "this source does not go there")
	c, err := Parse("a.yaml", ackConfig("forward: {http: {url: \"http://h.example.com\"}}\n", ""), providers())
	if err != nil || !strings.Contains(strings.Join(c.Warnings, "\n"), "unencrypted") {
		t.Errorf("plain http: %v, %q", err, c.Warnings)
	}
}

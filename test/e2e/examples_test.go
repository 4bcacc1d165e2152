package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestConsumerExamples runs the consumers that docs/consuming.md shows, as they stand in
// examples/, against what the built gateway published: each payment is booked once, though
// the consumer is killed in the middle and reads messages again. On the way every value in
// Kafka is held against docs/schema.
func TestConsumerExamples(t *testing.T) {
	redis, kafka := services(t)
	prefix := fmt.Sprintf("ex%d", time.Now().UnixNano())
	s := stripeSender()
	g := newGateway(t, gatewayConfig+forwardConfig(redis, kafka, prefix)+sourcesConfig([]sender{s}))
	g.start()
	const n = 200
	client := &http.Client{Timeout: 20 * time.Second}
	send := func(from, to int) {
		for i := from; i < to; i++ {
			for range 1 + i%2 { // every second one comes twice
				if status, body, _ := post(client, g.ingest, s.make(i, time.Now())); status != 200 {
					t.Fatalf("answer %d %s", status, body)
				}
			}
		}
	}
	send(0, n/2)
	g.drain(30 * time.Second)

	goBinary := filepath.Join(t.TempDir(), "consumer")
	if out, err := exec.Command("go", "build", "-o", goBinary, "penstock/examples/consumer").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	topic := prefix + ".stripe"
	consumers := map[string]func(ledger string) *exec.Cmd{
		"go": func(ledger string) *exec.Cmd {
			return exec.Command(goBinary, "-brokers", kafka, "-topics", topic, "-group", prefix, "-ledger", ledger)
		},
		"java": func(ledger string) *exec.Cmd {
			return exec.Command("java", "-cp", "../kafka/target/dependency/*", "../../examples/consumer-java/Consumer.java", kafka, topic, ledger)
		},
	}
	ledgers := map[string]string{}
	for name, command := range consumers {
		ledgers[name] = filepath.Join(t.TempDir(), name+".ndjson")
		c := consumer{t, command(ledgers[name])}
		c.until(ledgers[name], n/4, syscall.SIGKILL)
	}
	send(n/2, n)
	g.drain(30 * time.Second)
	var wg sync.WaitGroup
	for name, command := range consumers {
		wg.Go(func() {
			c := consumer{t, command(ledgers[name])}
			c.until(ledgers[name], n, syscall.SIGTERM)
			checkLedger(t, name, ledgers[name], n)
		})
	}
	wg.Wait()
	checkSchema(t, consume(t, kafka, topic))
	g.stop()
}

type consumer struct {
	t   *testing.T
	cmd *exec.Cmd
}

// until runs the consumer until the ledger has so many lines, then ends it.
func (c consumer) until(ledger string, lines int, how syscall.Signal) {
	c.t.Helper()
	var log bytes.Buffer
	c.cmd.Stdout, c.cmd.Stderr = &log, &log
	if err := c.cmd.Start(); err != nil {
		c.t.Error(err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- c.cmd.Wait() }()
	ctx, cancel := context.WithTimeout(c.t.Context(), 90*time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		select {
		case err := <-done:
			c.t.Errorf("the consumer ended by itself: %v\n%s", err, log.Bytes())
			return
		case <-ctx.Done():
			_ = c.cmd.Process.Kill()
			<-done
			c.t.Errorf("not %d lines in the ledger after 90 s\n%s", lines, log.Bytes())
			return
		case <-tick.C:
			b, _ := os.ReadFile(ledger)
			if bytes.Count(b, []byte{'\n'}) >= lines {
				_ = c.cmd.Process.Signal(how)
				<-done
				return
			}
		}
	}
}

func checkLedger(t *testing.T, name, path string, want int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	seen, sum := map[string]bool{}, int64(0)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var b struct {
			ID       string `json:"ce_id"`
			Minor    int64  `json:"minor"`
			Currency string `json:"currency"`
			OrderID  string `json:"order_id"`
		}
		if err := json.Unmarshal(sc.Bytes(), &b); err != nil || seen[b.ID] || b.Currency != "EUR" || b.OrderID == "" {
			t.Errorf("%s: line %s: %v, booked before: %v", name, sc.Bytes(), err, seen[b.ID])
		}
		seen[b.ID] = true
		sum += b.Minor
	}
	expected := int64(0)
	for i := range want {
		expected += 12000 + int64(i%1000)
	}
	if len(seen) != want || sum != expected {
		t.Errorf("%s: booked %d payments of %d minor units; want %d of %d", name, len(seen), sum, want, expected)
	}
}

func checkSchema(t *testing.T, records []record) {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("../../docs/schema/event.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(r.Payload)))
		if err == nil {
			err = schema.Validate(doc)
		}
		if err != nil {
			t.Errorf("%s: %v", r.header("ce_id"), err)
		}
	}
	if len(records) == 0 {
		t.Error("nothing in Kafka")
	}
}

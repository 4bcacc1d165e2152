package forward

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// ownBroker starts an Apache Kafka of this test's own, which it may break. It takes
// seconds and half a gigabyte, so it is asked for: PENSTOCK_REQUIRE_REAL or
// PENSTOCK_FAULTS.
type ownBroker struct {
	testBroker
	t   *testing.T
	dir string
	env []string
}

func startOwnBroker(t *testing.T, env ...string) *ownBroker {
	t.Helper()
	if os.Getenv("PENSTOCK_REQUIRE_REAL") == "" && os.Getenv("PENSTOCK_FAULTS") == "" {
		t.Skip("restarts of a real broker: set PENSTOCK_FAULTS or PENSTOCK_REQUIRE_REAL")
	}
	if testing.Short() {
		t.Skip("restarts of a real broker are not short")
	}
	b := &ownBroker{t: t, dir: t.TempDir(), env: env}
	t.Cleanup(func() { b.do("wipe") })
	b.do("kafka-start")
	b.addrs = []string{b.at("kafka")}
	return b
}

// at is where one of its listeners is.
func (b *ownBroker) at(listener string) string {
	b.t.Helper()
	port, err := os.ReadFile(filepath.Join(b.dir, listener+".port"))
	if err != nil {
		b.t.Fatal(err)
	}
	return "127.0.0.1:" + strings.TrimSpace(string(port))
}

// do runs a command of test/services.sh on the test's own services.
func (b *ownBroker) do(command string) {
	b.t.Helper()
	cmd := exec.Command("../test/services.sh", command)
	cmd.Env = append(append(os.Environ(), "PENSTOCK_RUN="+b.dir, "KAFKA_HEAP=256m"), b.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("services.sh %s: %v\n%s", command, err, out)
	}
}

// The broker is stopped and killed under load: everything is there once, in order. The
// answers take a while, so most of its ends leave a batch that is appended and not
// answered, and the records are older than what it remembers producers by.
func TestKafkaRestarts(t *testing.T) {
	b := startOwnBroker(t)
	topic := topicName(t)
	b.create(t, topic, 3)
	px := newProxy(t)
	px.set(nil, func(key int16, _ []byte) proxyDo {
		if key == keyProduce {
			time.Sleep(20 * time.Millisecond)
		}
		return pass
	})
	p := b.start(t, newMemState(), px, nil)
	const sent = 12_000
	var load sync.WaitGroup
	load.Go(func() {
		p.pumpAll(topic, 0, sent, func(n int) {
			if n%10 == 0 {
				time.Sleep(3 * time.Millisecond)
			}
		})
	})
	for _, how := range []string{"kafka-stop", "kafka-kill", "kafka-kill"} {
		time.Sleep(700 * time.Millisecond)
		b.do(how)
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		b.do("kafka-start")
		t.Logf("%s: the broker was back after %v", how, time.Since(began).Round(100*time.Millisecond))
	}
	load.Wait()
	last := map[string]string{}
	for _, r := range b.wantOnce(t, topic, 3, 0, sent) {
		if d := r.headers[headerDelivery]; d <= last[r.key] {
			t.Fatalf("key %s: %s follows %s", r.key, d, last[r.key])
		}
		last[r.key] = r.headers[headerDelivery]
	}
	t.Logf("%d events over 3 restarts", sent)
}

// The broker comes back with an older copy of its data: what it had acknowledged is
// gone. The live producer sees it by its next answer, a new one by the end offset.
func TestKafkaWentBack(t *testing.T) {
	for _, live := range []bool{true, false} {
		t.Run(fmt.Sprintf("live=%v", live), func(t *testing.T) {
			b := startOwnBroker(t)
			topic := topicName(t)
			b.create(t, topic, 1)
			var mu sync.Mutex
			var got []Regression
			watch := func(o *KafkaOptions) {
				o.Regressed = func(r Regression) error {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, r)
					return nil
				}
			}
			s := newMemState()
			p := b.start(t, s, nil, nil, watch)
			p.send(events(topic, 0, 10)...)
			_ = p.Done(p.waitAcked(10))
			b.do("kafka-stop")
			old := t.TempDir()
			run := filepath.Join(b.dir, "kafka")
			if err := os.CopyFS(old, os.DirFS(run)); err != nil {
				t.Fatal(err)
			}
			b.do("kafka-start")
			p.send(events(topic, 10, 30)...)
			_ = p.Done(p.waitAcked(20))
			b.do("kafka-kill")
			if !live {
				if err := p.shut(5 * time.Second); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.RemoveAll(run); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(run, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(run, os.DirFS(old)); err != nil {
				t.Fatal(err)
			}
			b.do("kafka-start")
			if !live {
				p = b.start(t, s, nil, nil, watch)
			}
			p.pumpAll(topic, 30, 40, func(int) {})
			want := Regression{Topic: topic, Partition: 0, Acked: 30, End: 10}
			if len(got) != 1 || got[0] != want {
				t.Errorf("reported %+v, want %+v once", got, want)
			}
			count := map[string]int{}
			for _, r := range b.read(t, topic, 1) {
				count[r.headers[headerID]]++
			}
			for n := 30; n < 40; n++ {
				if id := fmt.Sprintf("evt-%d", n); count[id] != 1 {
					t.Errorf("%s stands %d times", id, count[id])
				}
			}
		})
	}
}

package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// backUp does what docs/backup.md says, with cp for rsync: cursors first, then the logs
// until no file went away meanwhile; and checks the copy.
func (g *gateway) backUp(to string) {
	g.t.Helper()
	from := filepath.Join(g.dir, "archive")
	if err := os.MkdirAll(to, 0o700); err != nil {
		g.t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", filepath.Join(from, "cursors"), to).CombinedOutput(); err != nil {
		g.t.Fatalf("copy the cursors: %v %s", err, out)
	}
	eventually(g.t, time.Minute, "the segments are copied and no file goes away meanwhile", func() error {
		if out, err := exec.Command("cp", "-a", filepath.Join(from, "segments"), filepath.Join(from, "quarantine"), to).CombinedOutput(); err != nil {
			return fmt.Errorf("%w %s", err, out)
		}
		return nil
	})
	if out, err := exec.Command(binary(g.t), "archive", "check", to).CombinedOutput(); err != nil {
		g.t.Fatalf("the copy is not sound: %v\n%s", err, out)
	}
}

// say posts to the admin API.
func (g *gateway) say(path string) {
	g.t.Helper()
	req, _ := http.NewRequest(http.MethodPost, "http://"+g.admin+path, nil)
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		g.t.Fatalf("POST %s: %d", path, resp.StatusCode)
	}
}

// TestRestore: a copy is taken under load while one source is paused; later the machine is
// gone, disk and all. A gateway that starts from the copy publishes what the copy knew as
// waiting, and nothing a second time that Kafka has: not what the copy knew as published,
// and not what was published after it was taken.
func TestRestore(t *testing.T) {
	redis, kafka := services(t)
	prefix := fmt.Sprintf("restore%d", time.Now().UnixNano())
	s, paused := stripeSender(), githubSender()
	g := newGateway(t, gatewayConfig+forwardConfig(redis, kafka, prefix)+sourcesConfig([]sender{s, paused}))
	g.start()
	g.say("/api/v1/sources/" + paused.source + "/pause")
	client := loadClient(1)
	waiting := &loader{g: g, s: paused, acked: map[string]delivery{}, sent: map[string]bool{}}
	const waits = 20
	for n := range waits {
		d := paused.make(n, time.Now())
		if status, body, _ := post(client, g.ingest, d); status/100 != 2 {
			t.Fatalf("answer %d %s", status, body)
		}
		waiting.acked[d.token], waiting.sent[d.token] = d, true
	}

	l := &loader{g: g, s: s, acked: map[string]delivery{}, sent: map[string]bool{}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { l.run(stop, rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	more := func(n int) map[string]delivery {
		t.Helper()
		l.mu.Lock()
		want := len(l.acked) + n
		l.mu.Unlock()
		var acked map[string]delivery
		eventually(t, time.Minute, "deliveries are acked", func() error {
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(l.acked) < want {
				return fmt.Errorf("%d of %d", len(l.acked), want)
			}
			acked = maps.Clone(l.acked)
			return nil
		})
		return acked
	}
	before := more(200)
	saved := filepath.Join(t.TempDir(), "copy")
	g.backUp(saved)
	more(200)
	close(stop)
	wg.Wait()
	eventually(t, time.Minute, "all but the paused source is published", func() error {
		if v, err := g.metric("penstock_unpublished_deliveries"); err != nil || v != fmt.Sprint(waits) {
			return fmt.Errorf("%s deliveries are unpublished, want %d: %w", v, waits, err)
		}
		return nil
	})
	after := len(consume(t, kafka, prefix+"."+s.source))
	g.kill()
	if err := os.RemoveAll(filepath.Join(g.dir, "archive")); err != nil {
		t.Fatal(err)
	}

	if out, err := exec.Command("cp", "-a", saved, filepath.Join(g.dir, "archive")).CombinedOutput(); err != nil {
		t.Fatalf("restore: %v %s", err, out)
	}
	g.start()
	g.say("/api/v1/sources/" + paused.source + "/resume")
	g.drain(time.Minute)
	l.mu.Lock()
	all := len(l.acked)
	l.acked = before // what came after the copy is in Kafka and in no archive
	l.mu.Unlock()
	checkOnce(t, l, consume(t, kafka, prefix+"."+s.source))
	checkOnce(t, waiting, consume(t, kafka, prefix+"."+paused.source))
	// And it goes on: what comes now is published.
	d := s.make(1_000_000, time.Now())
	if status, body, _ := post(client, g.ingest, d); status/100 != 2 {
		t.Fatalf("after the restore: answer %d %s", status, body)
	}
	g.drain(time.Minute)
	if n := len(consume(t, kafka, prefix+"."+s.source)); n != after+1 {
		t.Errorf("%d records, want the %d of before and one", n, after)
	}
	t.Logf("%d acked, %d of them before the copy; %d were published before the machine was gone", all, len(before), after)
	g.stop()
}

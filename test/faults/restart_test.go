package faults

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// watched sends every other request on a connection of its own and the rest on those that
// are kept, and writes down what became of connections.
type watched struct {
	kept, fresh *http.Transport

	mu      sync.Mutex // protects what follows
	n       int
	refused int           // no connection, or one that broke before its answer
	silent  int           // a connection was reused and closed at that moment
	first   error         // of the refused
	longest time.Duration // until an answer
}

func newWatched() *watched {
	return &watched{kept: &http.Transport{MaxIdleConnsPerHost: 64}, fresh: &http.Transport{DisableKeepAlives: true}}
}

func (w *watched) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.n++
	via := w.kept
	if w.n%2 == 0 {
		via = w.fresh
	}
	w.mu.Unlock()
	reused := false
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	began := time.Now()
	resp, err := via.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err == nil {
		var body []byte
		body, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(body))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.longest = max(w.longest, time.Since(began))
	switch {
	case err == nil:
		return resp, nil
	case reused:
		w.silent++
	default:
		w.refused++
	}
	if w.first == nil {
		w.first = fmt.Errorf("reused %v, after %v: %w", reused, time.Since(began), err)
	}
	return nil, err
}

// restarts runs a gateway whose sockets somebody else holds, as systemd does.
type restarts struct {
	*run
	seen    *watched
	sockets []*os.File
}

// TestRestarts restarts the gateway under load, by a supervisor that holds its sockets and
// by SIGUSR2: no connection is refused or broken, what is stored is answered, and all of it
// is published once. PENSTOCK_RESTARTS is how often (default 5 of each).
func TestRestarts(t *testing.T) {
	required(t)
	times, rate := int(env("PENSTOCK_RESTARTS", 5)), int(env("PENSTOCK_FAULTS_RATE", 100))
	for _, way := range []struct {
		name    string
		restart func(r *restarts) error
		held    bool // a supervisor has the sockets
		silent  bool // connections that nobody uses are closed
	}{
		{"sockets held by a supervisor", (*restarts).bySupervisor, true, true},
		{"SIGUSR2", (*restarts).byHandOver, false, false},
	} {
		t.Run(way.name, func(t *testing.T) {
			r := newRestarts(t, way.held)
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				r.load.run(stop, rate)
			}()
			var took []time.Duration
			for i := range times {
				if err := r.more(50); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if err := way.restart(r); err != nil {
					t.Fatalf("restart %d: %v", i+1, err)
				}
				took = append(took, time.Since(began))
				if (i+1)%10 == 0 {
					r.seen.mu.Lock()
					t.Logf("%d restarts: %d sent, %d refused or reset, %d closed while silent", i+1, r.seen.n, r.seen.refused, r.seen.silent)
					r.seen.mu.Unlock()
				}
			}
			if err := r.more(50); err != nil {
				t.Fatal(err)
			}
			if !way.held {
				r.refusesBadFile()
			}
			close(stop)
			<-done
			v := r.end()
			slices.Sort(took)
			w := r.seen
			t.Logf("\n| restarts by | times | sent | 2xx | refused or reset | closed while silent | lost | repeats | restart s, median / worst | longest wait s |\n|---|---|---|---|---|---|---|---|---|---|\n| %s | %d | %d | %d | %d | %d | %d | %d | %.2f / %.2f | %.2f |",
				way.name, times, r.load.requests, r.load.acks, w.refused, w.silent, v.lost, v.repeats, took[times/2].Seconds(), took[times-1].Seconds(), w.longest.Seconds())
			if w.refused > 0 || w.silent > 0 && !way.silent {
				t.Errorf("%d connections refused or broken, %d closed when they were used again; the first: %v", w.refused, w.silent, w.first)
			}
		})
	}
}

func newRestarts(t *testing.T, held bool) *restarts {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	r := &run{t: t, prefix: fmt.Sprintf("rst%d", seed), counts: map[string]*count{}, skipped: map[string]bool{}}
	r.sv = sharedServices(t)
	r.redis = newProxy(t, r.sv.redis, rand.New(rand.NewPCG(seed, 2)), speakRedis)
	r.kafka = newProxy(t, r.sv.kafka, rand.New(rand.NewPCG(seed, 3)), speakKafka)
	r.g = newGateway(t, t.TempDir()+"/archive")
	rs := &restarts{run: r, seen: newWatched()}
	if held {
		for _, addr := range []*string{&r.g.ingest, &r.g.admin} {
			rs.hold(addr)
		}
	}
	r.load = newLoad(r.g, rand.New(rand.NewPCG(seed, 4)))
	// Long enough for any wait: a client that gives up looks like one that was refused.
	r.load.client = &http.Client{Timeout: 2 * time.Minute, Transport: rs.seen}
	t.Cleanup(r.load.client.CloseIdleConnections)
	r.conf = strings.Replace(r.config("", ""), "read_timeout: 5s", "read_timeout: 2m, idle_timeout: 30m", 1)
	if err := r.g.configure(r.conf); err != nil {
		t.Fatal(err)
	}
	if err := rs.launch(); err != nil {
		t.Fatal(err)
	}
	if err := rs.up(1); err != nil {
		t.Fatal(err)
	}
	return rs
}

// sharedServices are those that the tests share, where they run; nothing is broken here.
func sharedServices(t *testing.T) *services {
	t.Helper()
	redis, kafka := os.Getenv("PENSTOCK_REDIS"), os.Getenv("PENSTOCK_KAFKA")
	if redis == "" || kafka == "" {
		return startServices(t)
	}
	return &services{redis: redis, kafka: kafka}
}

func (r *restarts) hold(addr *string) {
	r.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { f.Close() })
	r.sockets = append(r.sockets, f)
	*addr = ln.Addr().String()
}

// launch starts the gateway with the sockets, if they are held, as systemd would.
func (r *restarts) launch() error {
	if len(r.sockets) == 0 {
		return r.g.launch()
	}
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" serve -c "$1"`, r.g.bin, r.g.conf)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=ingest:admin")
	cmd.ExtraFiles = r.sockets
	return r.g.run(cmd)
}

// said counts a line of the log.
func (r *restarts) said(what string) int {
	b, err := os.ReadFile(r.g.log.Name())
	if err != nil {
		return 0
	}
	return bytes.Count(b, []byte(what))
}

const readyLine = `"msg":"penstock is ready"`

// up waits until the gateway has been ready for the n-th time.
func (r *restarts) up(n int) error {
	return eventually(5*time.Minute, "the gateway is ready again", func() error {
		select {
		case err := <-r.g.ended:
			r.g.ended <- err
			return fatal{fmt.Errorf("the gateway ended: %w", err)}
		default:
		}
		if has := r.said(readyLine); has < n {
			return fmt.Errorf("it was ready %d times of %d", has, n)
		}
		return nil
	})
}

// more waits for so many further 2xx.
func (r *restarts) more(n int) error {
	acks := func() int {
		r.load.mu.Lock()
		defer r.load.mu.Unlock()
		return r.load.acks
	}
	was := acks()
	return eventually(2*time.Minute, "deliveries are taken", func() error {
		if now := acks(); now < was+n {
			return fmt.Errorf("%d of %d", now-was, n)
		}
		return nil
	})
}

func (r *restarts) bySupervisor() error {
	n := r.said(readyLine)
	if err := r.g.signal(syscall.SIGTERM); err != nil {
		return err
	}
	// No time is asserted: that it ends within ten seconds is another test's.
	select {
	case err := <-r.g.ended:
		if err != nil {
			return fmt.Errorf("SIGTERM: %w; want exit code 0", err)
		}
	case <-time.After(2 * time.Minute):
		_ = r.g.signal(syscall.SIGQUIT)
		return errors.New("SIGTERM: still running after two minutes")
	}
	if err := r.launch(); err != nil {
		return err
	}
	return r.up(n + 1)
}

func (r *restarts) byHandOver() error {
	n := r.said(readyLine)
	if err := r.g.signal(syscall.SIGUSR2); err != nil {
		return err
	}
	err := r.up(n + 1)
	if err != nil {
		_ = r.g.signal(syscall.SIGQUIT) // the log says where it hangs
	}
	return err
}

// refusesBadFile: a configuration that the next process would not start with keeps this one.
func (r *restarts) refusesBadFile() {
	if err := r.g.configure("sources: 7\n"); err != nil {
		r.t.Fatal(err)
	}
	if err := r.g.signal(syscall.SIGUSR2); err != nil {
		r.t.Fatal(err)
	}
	err := eventually(2*time.Minute, "the hand-over is refused", func() error {
		if r.said("nothing is handed over") == 0 {
			return errors.New("the log does not say so")
		}
		return nil
	})
	if err = errors.Join(err, r.more(20), r.g.configure(r.conf)); err != nil {
		r.t.Error(err)
	}
}

// end drains, stops, and checks; beside the harness's equations, that nothing was stored
// whose answer did not arrive.
func (r *restarts) end() *verdict {
	if err := r.load.settle(time.Minute); err != nil {
		r.t.Fatal(err)
	}
	if err := eventually(2*time.Minute, "everything acked is published", func() error {
		v, err := r.g.metric("penstock_unpublished_deliveries")
		if err == nil && v != 0 {
			err = fmt.Errorf("%v deliveries are unpublished", v)
		}
		return err
	}); err != nil {
		r.t.Error(err)
	}
	if err := r.g.stop(); err != nil {
		r.t.Error(err)
	}
	v := check(r.run)
	rows, err := export(r.g)
	if err != nil {
		r.t.Fatal(err)
	}
	answered := map[string]bool{}
	for _, t := range r.load.log {
		for _, id := range t.acked {
			answered[id] = true
		}
	}
	for i := range rows {
		if a := &rows[i]; a.Kind == "delivery" && a.Verdict == "accepted" && !answered[a.ID] {
			v.wrong("unanswered", "%s is stored, and its answer never came: %.200q", a.ID, a.Body)
		}
	}
	return v
}

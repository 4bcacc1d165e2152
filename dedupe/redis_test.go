package dedupe

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// server is a real redis-server of the test's own.
type server struct {
	addr   string
	cmd    *exec.Cmd
	client *redis.Client
}

func startRedis(t *testing.T, args ...string) *server {
	t.Helper()
	return startServer(t, nil, args...)
}

// startServer starts redis-server with a configuration file, which must come first, or none.
func startServer(t *testing.T, first []string, args ...string) *server {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("PENSTOCK_REQUIRE_REAL") == "1" {
			t.Fatal("PENSTOCK_REQUIRE_REAL=1 and there is no redis-server")
		}
		t.Skip("no redis-server here")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	all := append(slices.Clone(first), []string{"--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir()}...)
	all = append(all, args...)
	s := &server{addr: fmt.Sprintf("127.0.0.1:%d", port), cmd: exec.Command(bin, all...)}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.client = redis.NewClient(&redis.Options{Addr: s.addr, DisableIdentity: true})
	t.Cleanup(func() {
		s.client.Close()
		_ = s.cmd.Process.Signal(syscall.SIGCONT)
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	eventually(t, "redis-server answers", func() bool {
		err := s.client.Ping(context.Background()).Err()
		return err == nil || strings.HasPrefix(err.Error(), "NOAUTH")
	})
	return s
}

func (s *server) do(t *testing.T, args ...any) {
	t.Helper()
	if err := s.client.Do(context.Background(), args...).Err(); err != nil {
		t.Fatal(args, err)
	}
}

func (s *server) get(key string) string { return s.client.Get(context.Background(), key).Val() }

// proxy stands between the deduper and Redis; reply sees every chunk that comes back and
// says what goes on.
type proxy struct {
	addr  string
	reply atomic.Pointer[func([]byte) []byte]
}

func startProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, in, out)
			mu.Unlock()
			wg.Go(func() { _, _ = io.Copy(out, in); out.Close() })
			wg.Go(func() {
				buf := make([]byte, 64<<10)
				for {
					n, err := out.Read(buf)
					if err != nil {
						in.Close()
						return
					}
					b := buf[:n]
					if f := p.reply.Load(); f != nil {
						b = (*f)(b)
					}
					if len(b) > 0 {
						_, _ = in.Write(b)
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return p
}

func TestRealTwoNodes(t *testing.T) {
	s := startRedis(t)
	a := open(t, Options{Node: "n1", Redis: redisAt(s.addr)}, true)
	b := open(t, Options{Node: "n2", Redis: redisAt(s.addr)}, true)
	const n = 2000
	cs := make([][]Claim, 2)
	for i := range n {
		cs[0] = append(cs[0], claimOf(i, "a"))
		cs[1] = append(cs[1], claimOf(i, "b"))
	}
	out := [][]Answer{make([]Answer, n), make([]Answer, n)}
	var wg sync.WaitGroup
	for i, d := range []*Deduper{a, b} {
		wg.Go(func() {
			for lo := 0; lo < n; lo += 100 {
				d.Claim(context.Background(), cs[i][lo:lo+100], out[i][lo:lo+100])
			}
		})
	}
	wg.Wait()
	won := []int{0, 0}
	for i := range n {
		x, y := out[0][i].Verdict, out[1][i].Verdict
		if !(x == Publish && y == Park || x == Park && y == Publish) {
			t.Fatalf("event %d: node 1 says %d, node 2 says %d: exactly one may publish, the other parks", i, x, y)
		}
		if x == Publish {
			won[0]++
		} else {
			won[1]++
		}
	}
	t.Logf("node 1 got %d, node 2 got %d", won[0], won[1])
	for i := range n {
		if out[0][i].Verdict == Publish {
			a.Confirm(cs[0][i : i+1])
		} else {
			b.Confirm(cs[1][i : i+1])
		}
	}
	eventually(t, "confirms in redis", func() bool {
		return a.Unconfirmed()+b.Unconfirmed() == 0 && a.Status().Confirms+b.Status().Confirms == 0
	})
	for i := range n {
		d, c, of := a, cs[0][i], "b"
		if out[0][i].Verdict == Publish {
			d, c, of = b, cs[1][i], "a"
		}
		want(t, ask(d, c)[0], Duplicate, of)
	}
}

// TestRealLostReply: Redis applied the claim and its answer never came. Asking again
// must not make a duplicate of it.
func TestRealLostReply(t *testing.T) {
	s := startRedis(t)
	p := startProxy(t, s.addr)
	d := open(t, Options{Redis: redisAt(p.addr), BatchTimeout: 300 * time.Millisecond}, true)
	want(t, ask(d, claimOf(0, "warm"))[0], Publish, "")
	drop := func([]byte) []byte { return nil }
	p.reply.Store(&drop)
	a := ask(d, claimOf(1, "a"))[0]
	if want(t, a, Publish, ""); !a.Unknown {
		t.Error("a lost reply counts as known")
	}
	if s.get(d.redis.key(idOf(1))) == "" {
		t.Fatal("the claim did not reach redis; the test proves nothing")
	}
	p.reply.Store(nil)
	eventually(t, "breaker closes", func() bool { return d.Status().Answers })
	again := open(t, Options{Redis: redisAt(p.addr)}, false) // the same node after a restart
	a = ask(again, claimOf(1, "a"))[0]
	if want(t, a, Publish, ""); a.Unknown {
		t.Error("redis answers again, and yet the answer is unknown")
	}
}

// TestRealSwappedReplies: answers that belong to other keys prove nothing.
func TestRealSwappedReplies(t *testing.T) {
	s := startRedis(t)
	p := startProxy(t, s.addr)
	d := open(t, Options{Redis: redisAt(p.addr)}, true)
	for i := 1; i <= 2; i++ {
		k := d.redis.key(idOf(i))
		s.do(t, "set", k, fmt.Sprintf("D:%s:x%d:%s", keyHash(k), i, strings.Repeat("0", 32)))
	}
	out := ask(d, claimOf(1, "a"), claimOf(2, "b"))
	want(t, out[0], Duplicate, "x1")
	want(t, out[1], Duplicate, "x2")
	swap := func(b []byte) []byte {
		parts := strings.SplitAfter(string(b), "\r\n")
		if len(parts) == 5 { // two bulk strings
			return []byte(parts[2] + parts[3] + parts[0] + parts[1])
		}
		return b
	}
	p.reply.Store(&swap)
	for _, a := range ask(d, claimOf(1, "a"), claimOf(2, "b")) {
		if a.Verdict != Publish || !a.Unknown {
			t.Errorf("a reply of another key gives verdict %d of %q", a.Verdict, a.Of)
		}
	}
}

// TestRealFrozen: a frozen Redis costs one time-out, not one per batch.
func TestRealFrozen(t *testing.T) {
	s := startRedis(t)
	d := open(t, Options{Redis: redisAt(s.addr), BatchTimeout: 100 * time.Millisecond}, true)
	want(t, ask(d, claimOf(0, "a"))[0], Publish, "")
	eventually(t, "first probe", func() bool { return d.Status().Answers })
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := 1; i < 400; i++ {
		a := ask(d, claimOf(i, "a"))[0]
		if a.Verdict != Publish || !a.Unknown {
			t.Fatalf("event %d: verdict %d, unknown %t", i, a.Verdict, a.Unknown)
		}
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("400 batches took %v with a frozen redis; CONTRACT allows 2 s in all", took)
	} else {
		t.Logf("400 batches took %v", took)
	}
	d.Confirm([]Claim{claimOf(1, "a")})
	want(t, ask(d, claimOf(1, "b"))[0], Duplicate, "a")
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the confirm arrives", func() bool { return strings.HasPrefix(s.get(d.redis.key(idOf(1))), "D:") })
}

// TestRealErrors: whatever Redis says but a proof, the event is published.
func TestRealErrors(t *testing.T) {
	f := func(name string, args []string, spoil func(s *server, key string), verdict uint8) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			s := startRedis(t, args...)
			d := open(t, Options{Redis: redisAt(s.addr)}, true)
			spoil(s, d.redis.key(idOf(1)))
			a := ask(d, claimOf(1, "a"))[0]
			if a.Verdict != verdict || !a.Unknown {
				t.Errorf("verdict %d, unknown %t", a.Verdict, a.Unknown)
			}
			d.Confirm([]Claim{claimOf(1, "a")}) // must not be lost, must not block
			want(t, ask(d, claimOf(1, "b"))[0], Duplicate, "a")
		})
	}
	f("wrong type", nil, func(s *server, k string) { s.do(t, "lpush", k, "x") }, Publish)
	f("read only", nil, func(s *server, _ string) { s.do(t, "replicaof", "127.0.0.1", "1") }, Publish)
	f("out of memory", nil, func(s *server, _ string) {
		s.do(t, "config", "set", "maxmemory", "1")
	}, Publish)
	f("no auth", []string{"--requirepass", "secret"}, func(*server, string) {}, Publish)
	f("gone", nil, func(s *server, _ string) { _ = s.cmd.Process.Kill(); _, _ = s.cmd.Process.Wait() }, Publish)
	f("loading its data", []string{"--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024"}, loading, Publish)
	f("cannot save its data", nil, misconf, Publish)
	f("command forbidden", nil, func(s *server, _ string) { s.do(t, "acl", "setuser", "default", "-set") }, Publish)
}

// TestRealFlushed: evidence that Redis lost is in the index; a confirm that could not be
// written is written when it can.
// loading makes the server read its data again, slowly: it answers LOADING meanwhile.
func loading(s *server, _ string) {
	ctx := context.Background()
	fill := s.client.Pipeline()
	for i := range 6000 {
		fill.Set(ctx, fmt.Sprint("other:", i), strings.Repeat("x", 1024), 0)
	}
	if _, err := fill.Exec(ctx); err != nil {
		panic(err)
	}
	s.client.ConfigSet(ctx, "rdbcompression", "no")
	s.client.ConfigSet(ctx, "key-load-delay", "10000") // us: a minute in all, the test ends it
	reload := redis.NewClient(&redis.Options{Addr: s.addr, DisableIdentity: true, MaxRetries: -1, ReadTimeout: -1})
	go func() {
		defer reload.Close()
		reload.Do(ctx, "debug", "reload")
	}()
	s.until("LOADING")
}

// misconf makes the server refuse writes because its data could not be saved.
func misconf(s *server, _ string) {
	ctx := context.Background()
	s.client.ConfigSet(ctx, "save", "3600 1000000")
	if err := os.RemoveAll(s.client.ConfigGet(ctx, "dir").Val()["dir"]); err != nil {
		panic(err)
	}
	s.client.BgSave(ctx)
	s.until("MISCONF")
}

// until waits until a write is refused with the word.
func (s *server) until(word string) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := s.client.Set(context.Background(), "other", "x", 0).Err()
		if err != nil && strings.HasPrefix(err.Error(), word) {
			return
		}
		if time.Now().After(end) {
			panic(fmt.Sprintf("redis never says %s: %v", word, err))
		}
	}
}

func TestRealFlushed(t *testing.T) {
	s := startRedis(t)
	x := newIndex()
	d := open(t, Options{Local: x, Redis: redisAt(s.addr)}, true)
	c := claimOf(1, "a")
	want(t, ask(d, c)[0], Publish, "")
	d.Confirm([]Claim{c})
	eventually(t, "confirm in redis", func() bool { return strings.HasPrefix(s.get(d.redis.key(c.ID)), "D:") })
	s.do(t, "flushall")
	x.set(c.ID, flight{delivery: "a", at: time.Now()})
	want(t, ask(d, claimOf(1, "b"))[0], Duplicate, "a")
	// Read-only, then writable again.
	s.do(t, "replicaof", "127.0.0.1", "1")
	c2 := claimOf(2, "a")
	ask(d, c2)
	d.Confirm([]Claim{c2})
	time.Sleep(100 * time.Millisecond)
	s.do(t, "replicaof", "no", "one")
	eventually(t, "second confirm in redis", func() bool { return strings.HasPrefix(s.get(d.redis.key(c2.ID)), "D:") })
}

// TestRealRenew: a claim outlives its lease while the event is unresolved, comes back
// after a flush, and lapses when its node is dead.
func TestRealRenew(t *testing.T) {
	s := startRedis(t)
	// Long enough that a busy machine's renewal (every third of it) comes in time.
	lease := 4 * time.Second
	node := func(name string, run bool) *Deduper {
		return open(t, Options{Node: name, Redis: redisAt(s.addr), Lease: lease, BatchTimeout: lease}, run)
	}
	a, dead, b := node("n1", true), node("n3", false), node("n2", true)
	want(t, ask(a, claimOf(1, "a"))[0], Publish, "")
	want(t, ask(dead, claimOf(2, "c"))[0], Publish, "")
	want(t, ask(b, claimOf(2, "b"))[0], Park, "c")
	time.Sleep(2 * lease)
	want(t, ask(b, claimOf(1, "b"))[0], Park, "a")
	want(t, ask(b, claimOf(2, "b"))[0], Publish, "")
	s.do(t, "flushall")
	eventually(t, "the claim is made again", func() bool { return strings.HasPrefix(s.get(a.redis.key(idOf(1))), "P:") })
	want(t, ask(b, claimOf(1, "b"))[0], Park, "a")
	a.Release([]Claim{claimOf(1, "a")})
	want(t, ask(b, claimOf(1, "b"))[0], Publish, "")
	b.Confirm([]Claim{claimOf(1, "b")})
	eventually(t, "confirmed", func() bool { return strings.HasPrefix(s.get(a.redis.key(idOf(1))), "D:") })
	if ttl := s.client.PTTL(context.Background(), a.redis.key(idOf(1))).Val(); ttl < 30*time.Minute {
		t.Errorf("a confirm lives for %v, want its window", ttl)
	}
}

// TestRealOldServer: the scripts mean what the commands mean.
func TestRealOldServer(t *testing.T) {
	s := startRedis(t)
	a := open(t, Options{Node: "n1", Redis: redisAt(s.addr)}, false)
	b := open(t, Options{Node: "n2", Redis: redisAt(s.addr)}, false)
	a.redis.old.Store(true)
	b.redis.old.Store(true)
	want(t, ask(a, claimOf(1, "a"))[0], Publish, "")
	want(t, ask(b, claimOf(1, "b"))[0], Park, "a")
	again := open(t, Options{Node: "n1", Redis: redisAt(s.addr)}, false) // n1 after a restart
	again.redis.old.Store(true)
	want(t, ask(again, claimOf(1, "a"))[0], Publish, "")
	key := a.redis.key(idOf(1))
	s.do(t, "pexpire", key, 1000)
	a.redis.renew(t.Context(), []item{{idOf(1), "a"}})
	if ttl := s.client.PTTL(t.Context(), key).Val(); ttl < 5*time.Second {
		t.Errorf("renewed claim lives for %v", ttl)
	}
	if failed := a.redis.confirm(t.Context(), []Claim{claimOf(1, "a")}, time.Hour); len(failed) > 0 {
		t.Fatal("confirm failed")
	}
	a.redis.renew(t.Context(), []item{{idOf(1), "a"}})
	if ttl := s.client.PTTL(t.Context(), key).Val(); ttl < 50*time.Minute {
		t.Errorf("a renewal shortened a confirm to %v", ttl)
	}
	want(t, ask(b, claimOf(1, "b"))[0], Duplicate, "a")
	s.do(t, "lpush", a.redis.key(idOf(2)), "x")
	if x := ask(b, claimOf(2, "b"))[0]; x.Verdict != Publish || !x.Unknown {
		t.Errorf("wrong type: %+v", x)
	}
	// A new server that turns out to be an old one: miniredis-free check of the switch.
	if !isSyntax(errSyntax{}) {
		t.Error("a syntax error does not switch to scripts")
	}
}

type errSyntax struct{}

func (errSyntax) Error() string { return "ERR syntax error" }

func TestRealStartUpCheck(t *testing.T) {
	f := func(policy string, warns int) {
		t.Helper()
		s := startRedis(t, "--maxmemory", "100mb", "--maxmemory-policy", policy)
		core, logs := observer.New(zap.WarnLevel)
		d := open(t, Options{Redis: redisAt(s.addr), Logger: zap.New(core)}, true)
		eventually(t, "checked", func() bool { return d.redis.checked.Load() })
		if n := logs.FilterMessageSnippet("evicts").Len(); n != warns {
			t.Errorf("policy %s: %d warnings, want %d", policy, n, warns)
		}
	}
	f("noeviction", 0)
	f("allkeys-lru", 1)
}

// TestRealCluster: claims of one batch go to the nodes that own them.
func TestRealCluster(t *testing.T) {
	s := startRedis(t, "--cluster-enabled", "yes")
	slots := []any{"cluster", "addslots"}
	for i := range 16384 {
		slots = append(slots, i)
	}
	s.do(t, slots...)
	eventually(t, "cluster is up", func() bool {
		return strings.Contains(s.client.ClusterInfo(context.Background()).Val(), "cluster_state:ok")
	})
	r := redisAt(s.addr)
	r.Cluster = true
	a := open(t, Options{Node: "n1", Redis: r}, true)
	b := open(t, Options{Node: "n2", Redis: r}, true)
	for i := range 50 {
		want(t, ask(a, claimOf(i, "a"))[0], Publish, "")
		want(t, ask(b, claimOf(i, "b"))[0], Park, "a")
	}
}

func BenchmarkRealClaim(b *testing.B) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		b.Skip("no redis-server here")
	}
	cmd := exec.Command(bin, "--port", "17999", "--save", "")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	time.Sleep(300 * time.Millisecond)
	d, err := New(Options{Node: "n1", Local: newIndex(), Redis: redisAt("127.0.0.1:17999"), BatchTimeout: 5 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	defer d.redis.close()
	cs, out := make([]Claim, pipelineLen), make([]Answer, pipelineLen)
	n := 0
	for b.Loop() {
		for i := range cs {
			n++
			cs[i] = claimOf(n, "01J0000000000000000000000A")
		}
		d.Claim(context.Background(), cs, out)
	}
	b.ReportMetric(float64(b.N*pipelineLen)/b.Elapsed().Seconds(), "claims/s")
}

// BenchmarkRealConfirm is BenchmarkRealClaim of confirms: queued by one, sent by another.
func BenchmarkRealConfirm(b *testing.B) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		b.Skip("no redis-server here")
	}
	cmd := exec.Command(bin, "--port", "17998", "--save", "")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	time.Sleep(300 * time.Millisecond)
	d, err := New(Options{Node: "n1", Local: newIndex(), Redis: redisAt("127.0.0.1:17998"), BatchTimeout: 5 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	defer d.redis.close()
	cs := make([]Claim, pipelineLen)
	for i := range cs {
		cs[i] = claimOf(i, "01J0000000000000000000000A")
	}
	b.ReportAllocs()
	for b.Loop() {
		d.confirms.add(cs)
		if !d.flushOnce(context.Background()) {
			b.Fatal("not confirmed")
		}
	}
}

package dedupe

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"penstock/archive"
)

// patiently is eventually for what several processes must agree on.
func patiently(t *testing.T, what string, f func() bool) {
	t.Helper()
	began := time.Now()
	defer func() { t.Logf("%.1f s until %s", time.Since(began).Seconds(), what) }()
	for deadline := began.Add(90 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// kill is kill -9.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait()
}

// startSentinels makes three sentinels that watch the master under the name shop.
func startSentinels(t *testing.T, master *server) (addrs []string) {
	t.Helper()
	for range 3 {
		conf := filepath.Join(t.TempDir(), "sentinel.conf")
		text := fmt.Sprintf("sentinel monitor shop 127.0.0.1 %s 2\nsentinel down-after-milliseconds shop 3000\nsentinel failover-timeout shop 5000\n", portOf(master.addr))
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, startServer(t, []string{conf, "--sentinel"}).addr)
	}
	patiently(t, "the sentinels know each other and the replica", func() bool {
		for _, a := range addrs {
			c := redis.NewSentinelClient(&redis.Options{Addr: a, DisableIdentity: true})
			m := c.Master(context.Background(), "shop").Val()
			c.Close()
			if m["num-slaves"] != "1" || m["num-other-sentinels"] != "2" {
				return false
			}
		}
		return true
	})
	return addrs
}

// TestRealSentinelStaleReplica: the master dies with claims and confirms that its replica
// never got, and the sentinels promote that one. What it lost is unknown to it and no
// duplicate of anything; what this node delivered its own index knows.
func TestRealSentinelStaleReplica(t *testing.T) {
	t.Parallel()
	master := startRedis(t)
	px := startProxy(t, master.addr)
	replica := startRedis(t, "--replicaof", "127.0.0.1", portOf(px.addr))
	patiently(t, "the replica follows", func() bool {
		return strings.Contains(replica.client.Info(context.Background(), "replication").Val(), "master_link_status:up")
	})
	o := &RedisOptions{Addresses: startSentinels(t, master), Master: "shop"}
	index := newIndex()
	a := open(t, Options{Node: "n1", Redis: o, Local: index, Lease: time.Hour}, true)
	b := open(t, Options{Node: "n2", Redis: o}, true)

	want(t, ask(a, claimOf(1, "a"))[0], Publish, "")
	want(t, ask(b, claimOf(1, "b"))[0], Park, "a")
	key := a.redis.key
	patiently(t, "the replica has the first claim", func() bool { return replica.get(key(idOf(1))) != "" })
	deaf := func([]byte) []byte { return nil }
	px.reply.Store(&deaf) // the replica believes in its master and hears nothing more

	want(t, ask(a, claimOf(2, "a"))[0], Publish, "")
	want(t, ask(a, claimOf(3, "a"))[0], Publish, "")
	a.Confirm([]Claim{claimOf(3, "a")})
	index.set(idOf(3), flight{delivery: "a", at: time.Now()})
	eventually(t, "the master has the confirm", func() bool { return strings.HasPrefix(master.get(key(idOf(3))), "D:") })
	want(t, ask(b, claimOf(2, "b"))[0], Park, "a")
	want(t, ask(b, claimOf(3, "b"))[0], Duplicate, "a")
	if n := replica.client.DBSize(context.Background()).Val(); n != 1 {
		t.Fatalf("the replica has %d keys: it is not stale", n)
	}
	master.kill(t)
	n := 100
	patiently(t, "claims go to the promoted replica", func() bool {
		n++
		ans := ask(b, claimOf(n, "b"))[0] // whatever Redis says meanwhile: it goes on
		if ans.Verdict != Publish {
			t.Fatalf("claim %d, which nobody else has made, while nobody is master: %+v", n, ans)
		}
		return strings.HasPrefix(replica.get(key(idOf(n))), "P:")
	})
	want(t, ask(b, claimOf(1, "b"))[0], Park, "a")      // the replica had it
	want(t, ask(a, claimOf(3, "c"))[0], Duplicate, "a") // its own index
	want(t, ask(b, claimOf(2, "b"))[0], Publish, "")    // lost: a repeat at worst, never a gap
	want(t, ask(b, claimOf(3, "b"))[0], Publish, "")    // lost
	want(t, ask(a, claimOf(n+1, "a"))[0], Publish, "")  // and it is a Redis as before
	want(t, ask(b, claimOf(n+1, "b"))[0], Park, "a")    //
}

// startCluster makes a cluster of three masters and a replica of the first.
func startCluster(t *testing.T) (masters []*server, replica *server) {
	t.Helper()
	ctx := context.Background()
	node := func() *server {
		return startRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "3000", "--cluster-port", freePort(t))
	}
	masters, replica = []*server{node(), node(), node()}, node()
	bounds := []int{0, 5461, 10923, 16384}
	for i, m := range masters {
		m.do(t, "cluster", "addslotsrange", bounds[i], bounds[i+1]-1)
		m.do(t, "cluster", "set-config-epoch", i+1)
	}
	for _, s := range append([]*server{replica}, masters[1:]...) {
		bus := masters[0].client.ConfigGet(ctx, "cluster-port").Val()["cluster-port"]
		s.do(t, "cluster", "meet", "127.0.0.1", portOf(masters[0].addr), bus)
	}
	id := masters[0].client.Do(ctx, "cluster", "myid").Val()
	patiently(t, "the replica is one", func() bool { return replica.client.Do(ctx, "cluster", "replicate", id).Err() == nil })
	patiently(t, "the cluster is up", func() bool {
		for _, s := range append([]*server{replica}, masters...) {
			info := s.client.ClusterInfo(ctx).Val()
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:4") {
				return false
			}
		}
		return strings.Contains(replica.client.Info(ctx, "replication").Val(), "master_link_status:up") &&
			strings.Contains(masters[0].client.ClusterNodes(ctx).Val(), "slave")
	})
	return masters, replica
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return portOf(l.Addr().String())
}

// TestRealClusterFailover: a master of a cluster dies. Until its replica has taken over,
// whatever cannot be asked is published; then the claims that it kept count again.
func TestRealClusterFailover(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	masters, replica := startCluster(t)
	o := &RedisOptions{}
	for _, m := range masters {
		o.Addresses = append(o.Addresses, m.addr)
	}
	a := open(t, Options{Node: "n1", Redis: o, Lease: time.Hour}, true)
	b := open(t, Options{Node: "n2", Redis: o}, true)
	const claims = 60
	all := func(delivery string) (cs []Claim) {
		for i := range claims {
			cs = append(cs, claimOf(i, delivery))
		}
		return cs
	}
	for _, ans := range ask(a, all("a")...) {
		want(t, ans, Publish, "")
	}
	for _, ans := range ask(b, all("b")...) {
		want(t, ans, Park, "a")
	}
	for i, m := range masters {
		if m.client.DBSize(ctx).Val() == 0 {
			t.Errorf("master %d has no claim: one node does the work of all", i)
		}
	}
	patiently(t, "the replica has what its master has", func() bool {
		return replica.client.DBSize(ctx).Val() == masters[0].client.DBSize(ctx).Val()
	})
	masters[0].kill(t)
	n := 1000
	patiently(t, "claims go to the replica", func() bool {
		n++
		if ans := ask(b, claimOf(n, "b"))[0]; ans.Verdict != Publish {
			t.Fatalf("claim %d, which nobody else has made, without a master: %+v", n, ans)
		}
		return replica.client.DBSize(ctx).Val() > 0 && strings.Contains(replica.client.Info(ctx, "replication").Val(), "role:master") &&
			holds(replica, b.redis.key, n)
	})
	for i, ans := range ask(b, all("b")...) {
		if ans.Verdict != Park || ans.Of != "a" {
			t.Errorf("claim %d after the failover: %+v, want it parked behind the first", i, ans)
		}
	}
}

// holds says whether the server has the n-th claim.
func holds(s *server, key func(archive.Identity) string, n int) bool {
	return strings.HasPrefix(s.get(key(idOf(n))), "P:")
}

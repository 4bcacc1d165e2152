package forward

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"penstock/archive"
	"penstock/dedupe"
)

// grouped gives sources of which old and new share a group, and other does not.
func grouped(source string) *SourceInfo {
	info := &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}, Topic: "webhooks.{source}"}
	if source == "old" || source == "new" {
		info.Group = "migration"
	}
	return info
}

// withRedis gives a node a deduper of its own; nodes of one prefix share what Redis knows.
func withRedis(t *testing.T, r *rig, name, addr, prefix string) {
	r.change = func(o *Options) {
		d, err := dedupe.New(dedupe.Options{Node: name, Local: r.a, Lease: time.Second,
			Redis: &dedupe.RedisOptions{Addresses: []string{addr}, Prefix: prefix}})
		if err != nil {
			t.Fatal(err)
		}
		o.Dedupe = d
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = d.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
	}
}

// TestGroupLocal: the same event over the old and the new URL of a migration goes out
// once, without Redis and across a kill; a source outside of the group is another matter.
func TestGroupLocal(t *testing.T) {
	r := newRig(t, nil)
	r.infos = grouped
	r.start()
	const n = 60
	var olds, news []*archive.Delivery
	for i := range n {
		b := body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%5)}
		olds = append(olds, r.put("old", b))
		if i == n/2 {
			r.crash()
			r.start()
		}
		news = append(news, r.put("new", b))
		r.put("other", b)
	}
	r.drained()
	all := ids(append(r.k.records("webhooks.old"), r.k.records("webhooks.new")...))
	for i := range n {
		if id := "e" + strconv.Itoa(i); all[id] != 1 {
			t.Errorf("%s went out %d times over the two", id, all[id])
		}
	}
	if got := len(r.k.records("webhooks.other")); got != n {
		t.Errorf("the source outside of the group has %d events, want %d", got, n)
	}
	if os := r.outcomes(news[0]); len(os) != 1 || os[0].Kind != archive.Duplicate || os[0].Of != olds[0].ID {
		t.Errorf("the twin over the new URL: %+v, want a duplicate of %s", os, olds[0].ID)
	}
	r.stop()
}

// TestGroupRoutes: a route whose topic names the source is one way for the whole group.
func TestGroupRoutes(t *testing.T) {
	r := newRig(t, nil)
	routes, err := CompileRoutes([]Route{{When: "true", Topic: "all"}, {When: "true", Topic: "of.{source}"}})
	if err != nil {
		t.Fatal(err)
	}
	r.infos = func(source string) *SourceInfo {
		info := grouped(source)
		info.Routes = routes
		return info
	}
	r.start()
	r.put("old", body{ID: "x", Key: "k"})
	twin := r.put("new", body{ID: "x", Key: "k"})
	r.drained()
	r.wantSays(twin, "0/2 duplicate  ()", "1/2 duplicate  ()")
	if len(r.k.all()) != 2 || len(r.k.records("of.new")) != 0 {
		t.Errorf("%+v", r.k.all())
	}
	r.stop()
}

// TestGroupRealRedis: the old URL leads to one node and the new one to another, which
// share nothing but Redis; one whose Redis is away knows what came over itself.
func TestGroupRealRedis(t *testing.T) {
	addr := os.Getenv("PENSTOCK_REDIS")
	if addr == "" {
		if os.Getenv("PENSTOCK_REQUIRE_REAL") == "1" {
			t.Fatal("PENSTOCK_REQUIRE_REAL=1 and PENSTOCK_REDIS is not set")
		}
		t.Skip("PENSTOCK_REDIS is not set")
	}
	prefix := "group-test-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	node := func(name, addr string) *rig {
		r := newRig(t, nil)
		r.infos = grouped
		withRedis(t, r, name, addr, prefix)
		r.start()
		return r
	}
	a, b, lonely := node("a", addr), node("b", addr), node("c", "127.0.0.1:1")
	const n = 200
	for i := range n {
		ev := body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%9)}
		first, second := a, b
		if i%2 == 1 {
			first, second = b, a
		}
		first.put("old", ev)
		second.put("new", ev)
		if i < 20 {
			lonely.put("old", ev)
			lonely.put("new", ev)
		}
	}
	for _, r := range []*rig{a, b, lonely} {
		r.drained()
	}
	both, alone := ids(append(a.k.all(), b.k.all()...)), ids(lonely.k.all())
	for i := range n {
		id := "e" + strconv.Itoa(i)
		if both[id] != 1 {
			t.Errorf("%s went out %d times over two nodes", id, both[id])
		}
		if i < 20 && alone[id] != 1 {
			t.Errorf("%s went out %d times where redis is away", id, alone[id])
		}
	}
	a.stop()
	b.stop()
	lonely.stop()
}

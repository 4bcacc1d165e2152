package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fault breaks something, leaves it broken for a while, and heals it.
type fault struct {
	name   string
	victim string // one word or more; two faults that share one are never at work at once
	often  int    // cards in the deck
	run    func(r *run, rng *rand.Rand) error
}

func pause(rng *rand.Rand, lo, hi int) {
	time.Sleep(time.Duration(lo+rng.IntN(hi-lo)) * time.Millisecond)
}

// menu is every fault. The numbers of cards make the quick ones frequent.
var menu = []fault{
	{"gateway kill -9", "gateway", 6, func(r *run, rng *rand.Rand) error {
		if err := r.g.kill(); err != nil {
			return err
		}
		pause(rng, 0, 200)
		return r.g.start()
	}},
	{"gateway kill -9 in its recovery", "gateway", 2, func(r *run, rng *rand.Rand) error {
		for range 2 + rng.IntN(4) {
			if err := r.g.kill(); err != nil {
				return err
			}
			if err := r.g.launch(); err != nil {
				return err
			}
			pause(rng, 1, 250)
		}
		return r.ready()
	}},
	{"gateway SIGTERM", "gateway", 2, func(r *run, _ *rand.Rand) error {
		if err := r.g.stop(); err != nil {
			return err
		}
		return r.g.start()
	}},
	{"gateway killed while it drains", "gateway", 1, func(r *run, rng *rand.Rand) error {
		if err := r.g.signal(syscall.SIGTERM); err != nil {
			return err
		}
		pause(rng, 0, 100)
		if err := r.g.kill(); err != nil && !strings.Contains(err.Error(), "finished") {
			return err
		}
		return r.g.start()
	}},
	{"gateway SIGSTOP", "gateway", 2, func(r *run, rng *rand.Rand) error {
		return frozen(r.g.signal, func() { pause(rng, 100, 4000) })
	}},
	{"configuration reloaded", "gateway", 2, (*run).reloads},
	{"power cut", "gateway", 4, func(r *run, rng *rand.Rand) error {
		if !r.disk.real {
			return errSkip
		}
		if err := r.disk.cutPower(); err != nil {
			return err
		}
		pause(rng, 0, 50) // it lives on over a dead disk, and must not say 2xx
		if err := r.g.kill(); err != nil {
			return err
		}
		if err := r.disk.unmount(); err != nil {
			return err
		}
		if err := r.disk.mount(); err != nil {
			return err
		}
		return r.g.start()
	}},
	{"disk full", "gateway", 1, func(r *run, rng *rand.Rand) error { return r.fullDisk(rng, 0) }},
	{"disk at its reserve", "gateway", 1, func(r *run, rng *rand.Rand) error { return r.fullDisk(rng, 4<<20) }},

	{"redis kill -9, back empty", "redis", 3, func(r *run, rng *rand.Rand) error {
		if err := r.sv.do("redis-kill"); err != nil {
			return err
		}
		pause(rng, 0, 1500)
		return r.sv.do("redis-start")
	}},
	{"redis SIGSTOP", "redis", 2, func(r *run, rng *rand.Rand) error {
		return frozen(func(s syscall.Signal) error { return r.sv.signal("redis", s) }, func() { pause(rng, 100, 3000) })
	}},
	{"redis FLUSHALL", "redis", 2, func(r *run, _ *rand.Rand) error { return r.say("FLUSHALL") }},
	{"redis holds other types", "redis", 1, (*run).wrongTypes},
	{"redis out of memory", "redis", 1, func(r *run, rng *rand.Rand) error {
		return r.between(rng, 200, 2000, []string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"})
	}},
	{"redis READONLY", "redis", 1, func(r *run, rng *rand.Rand) error {
		return r.between(rng, 200, 2000, []string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"})
	}},
	{"redis answers late", "redis", 1, func(r *run, rng *rand.Rand) error {
		return through(r.redis, rng, 300, 2000, mode{delay: time.Duration(20+rng.IntN(200)) * time.Millisecond})
	}},
	{"redis answers lost", "redis", 2, func(r *run, rng *rand.Rand) error {
		return through(r.redis, rng, 300, 2000, mode{lose: 0.1, skip: 0.1})
	}},
	{"redis answers exchanged", "redis", 2, func(r *run, rng *rand.Rand) error {
		return through(r.redis, rng, 300, 2000, mode{swap: true})
	}},
	{"redis connections cut", "redis", 1, func(r *run, rng *rand.Rand) error {
		return through(r.redis, rng, 50, 1500, mode{refuse: true})
	}},

	{"kafka kill -9", "kafka", 2, func(r *run, rng *rand.Rand) error {
		if err := r.sv.do("kafka-kill"); err != nil {
			return err
		}
		pause(rng, 0, 1000)
		return r.sv.do("kafka-start")
	}},
	{"kafka stopped", "kafka", 1, func(r *run, _ *rand.Rand) error {
		if err := r.sv.do("kafka-stop"); err != nil {
			return err
		}
		return r.sv.do("kafka-start")
	}},
	{"kafka SIGSTOP", "kafka", 2, func(r *run, rng *rand.Rand) error {
		return frozen(func(s syscall.Signal) error { return r.sv.signal("kafka", s) }, func() { pause(rng, 100, 4000) })
	}},
	{"kafka acks lost", "kafka", 4, func(r *run, rng *rand.Rand) error {
		return through(r.kafka, rng, 300, 2500, mode{lose: 0.3})
	}},
	{"kafka acks late", "kafka", 2, func(r *run, rng *rand.Rand) error {
		return through(r.kafka, rng, 300, 2500, mode{delay: time.Duration(100+rng.IntN(1500)) * time.Millisecond})
	}},
	{"kafka connections cut", "kafka", 2, func(r *run, rng *rand.Rand) error {
		return through(r.kafka, rng, 50, 2500, mode{refuse: true})
	}},

	{"gateway kill -9, kafka never got its batches", "gateway kafka", 2, func(r *run, rng *rand.Rand) error {
		return r.killedUnanswered(rng, mode{mute: 0.3})
	}},
	{"gateway kill -9, it never got kafka's acks", "gateway kafka", 2, func(r *run, rng *rand.Rand) error {
		return r.killedUnanswered(rng, mode{lose: 1})
	}},

	{"clients slow, lost, rude", "clients", 3, func(r *run, rng *rand.Rand) error {
		var wg sync.WaitGroup
		for range 20 + rng.IntN(40) {
			its := rand.New(rand.NewPCG(rng.Uint64(), 1))
			wg.Go(func() { r.load.rude(its) })
		}
		wg.Wait()
		return nil
	}},
}

// clash says whether two faults have a victim in common.
func (f fault) clash(with fault) bool {
	for _, v := range strings.Fields(f.victim) {
		if slices.Contains(strings.Fields(with.victim), v) {
			return true
		}
	}
	return false
}

// killedUnanswered kills the gateway while batches are sent and none is acknowledged to
// it: whatever it wrote down before an ack is wrong now.
func (r *run) killedUnanswered(rng *rand.Rand, m mode) error {
	r.kafka.set(m)
	err := eventually(30*time.Second, "some batches go unanswered", func() error {
		if n := r.kafka.touched(); n < 4 {
			return fmt.Errorf("%d did", n)
		}
		return nil
	})
	pause(rng, 100, 900) // an outcome is written in less
	err = errors.Join(err, r.g.kill())
	r.kafka.set(mode{})
	if err != nil {
		return err
	}
	pause(rng, 0, 200)
	return r.g.start()
}

// frozen stops a process, and lets it go on whatever happens.
func frozen(signal func(syscall.Signal) error, wait func()) error {
	if err := signal(syscall.SIGSTOP); err != nil {
		return err
	}
	wait()
	return signal(syscall.SIGCONT)
}

// through lets a proxy misbehave for a while.
func through(px *proxy, rng *rand.Rand, lo, hi int, m mode) error {
	px.set(m)
	pause(rng, lo, hi)
	px.set(mode{})
	return nil
}

// say gives Redis a command that it must take.
func (r *run) say(args ...string) error {
	out, err := r.sv.cli(args...)
	if err == nil && !strings.HasPrefix(out, "OK") {
		err = fmt.Errorf("redis answers %v with %q", args, out)
	}
	return err
}

func (r *run) between(rng *rand.Rand, lo, hi int, first, last []string) error {
	if err := r.say(first...); err != nil {
		return err
	}
	pause(rng, lo, hi)
	return r.say(last...)
}

// wrongTypes puts a list where the gateway's values are.
func (r *run) wrongTypes(_ *rand.Rand) error {
	const script = `for _,k in ipairs(redis.call('KEYS',ARGV[1])) do redis.call('DEL',k) redis.call('LPUSH',k,'x') end return redis.status_reply('OK')`
	return r.say("EVAL", script, "0", r.prefix+":*")
}

func (r *run) fullDisk(rng *rand.Rand, leave int64) error {
	if !r.disk.real {
		return errSkip
	}
	free, err := r.disk.fill(leave)
	if err != nil {
		return err
	}
	pause(rng, 300, 2500)
	if err := free(); err != nil {
		return err
	}
	// CONTRACT: serving resumes within 5 s of the cure, without a restart.
	return eventually(5*time.Second, "the gateway serves again with room on the disk", r.g.ready)
}

// reloads changes the configuration under load, in good ways and bad ones: another
// secret beside the first, a source paused, half a file, nothing.
func (r *run) reloads(rng *rand.Rand) error {
	defer func() { _ = r.g.configure(r.conf) }() // whatever happened, the next start finds a good one
	for range 2 + rng.IntN(3) {
		conf := r.conf
		switch rng.IntN(4) {
		case 0:
			conf = r.config(fmt.Sprintf(", another-secret-%d-0123456789", rng.IntN(1000)), "")
		case 1:
			conf = r.config("", r.load.senders[rng.IntN(len(r.load.senders))].source)
		case 2:
			conf = conf[:rng.IntN(len(conf))]
		case 3:
			conf = ""
		}
		if err := os.WriteFile(r.g.conf, []byte(conf), 0o600); err != nil { // in place: it may be read half written
			return err
		}
		if err := r.g.signal(syscall.SIGHUP); err != nil {
			return err
		}
		pause(rng, 100, 800)
	}
	if err := r.g.configure(r.conf); err != nil {
		return err
	}
	return r.g.signal(syscall.SIGHUP)
}

package dedupe

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"penstock/archive"
)

// RedisOptions say where Redis is: one address is a server, several are a cluster, a
// master name makes them sentinels.
type RedisOptions struct {
	Addresses        []string
	Username         string
	Password         string
	SentinelUsername string
	SentinelPassword string
	Master           string // sentinel's name of the master
	Cluster          bool   // a cluster behind one address
	DB               int
	Prefix           string // of every key; default "penstock"
	TLS              *tls.Config
}

// item is one key to work on.
type item struct {
	id       archive.Identity
	delivery string
}

// The states of a reply.
const (
	replyNone      = iota // nobody else has it: go on
	replyDelivered        // a confirm
	replyForeign          // another node's claim
	replyUnknown          // proves nothing
)

type reply struct {
	state    int
	node     string
	delivery string
	content  archive.Identity
}

var errNoAnswer = errors.New("redis did not answer in time")

// The scripts mean what the commands mean, for servers before 7.0 that know neither
// SET NX GET nor PEXPIRE GT. GET fails on a wrong type, as it must.
var (
	claimScript = redis.NewScript(`local v=redis.call('GET',KEYS[1]) if v then return v end ` +
		`redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return false`)
	renewScript = redis.NewScript(`local t=redis.call('PTTL',KEYS[1]) if t>=0 and t<tonumber(ARGV[1]) then ` +
		`return redis.call('PEXPIRE',KEYS[1],ARGV[1]) end return 0`)
	releaseScript = redis.NewScript(`if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0`)
)

// quiet keeps go-redis from writing to stderr in a format of its own: what went wrong is
// in the errors, and the breaker logs its changes. The library has one logger for all.
var quiet sync.Once

type noLog struct{}

func (noLog) Printf(context.Context, string, ...interface{}) {}

// store is the Redis side: what goes over the wire and what a reply is worth.
type store struct {
	client  redis.UniversalClient
	prefix  string
	node    string
	lease   time.Duration
	timeout time.Duration
	met     *metrics
	br      breaker
	checked atomic.Bool    // the memory policy was looked at
	old     atomic.Bool    // before Redis 7: use scripts
	wg      sync.WaitGroup // exchanges that were given up but still run
}

func newStore(o *Options, m *metrics) (*store, error) {
	quiet.Do(func() { redis.SetLogger(noLog{}) })
	r := o.Redis
	if len(r.Addresses) == 0 {
		return nil, errors.New("redis has no address")
	}
	s := &store{prefix: r.Prefix, node: o.Node, lease: o.Lease, timeout: o.BatchTimeout, met: m}
	if s.prefix == "" {
		s.prefix = "penstock"
	}
	s.client = redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: r.Addresses, MasterName: r.Master, IsClusterMode: r.Cluster, DB: r.DB,
		Username: r.Username, Password: r.Password,
		SentinelUsername: r.SentinelUsername, SentinelPassword: r.SentinelPassword,
		TLSConfig: r.TLS,
		// Without this a lost reply is asked again behind our back. The owner in the value
		// makes that harmless, but the time would be spent twice (libraries.md 4).
		MaxRetries:            -1,
		ContextTimeoutEnabled: true,
		DialTimeout:           time.Second,
		DialerRetries:         1,
		ReadTimeout:           500 * time.Millisecond,
		WriteTimeout:          500 * time.Millisecond,
		PoolTimeout:           200 * time.Millisecond,
		PoolSize:              8,
		PipelinePoolSize:      6, // claims, confirms, renewals, the probe, two spare for those given up
		DisableIdentity:       true,
	})
	return s, nil
}

func (s *store) key(id archive.Identity) string {
	var room [64]byte // on the stack, where the prefix is short
	return string(s.appendKey(room[:0], id))
}

func (s *store) appendKey(b []byte, id archive.Identity) []byte {
	b = append(append(b, s.prefix...), ':')
	return hex.AppendEncode(b, id[:])
}

// appendKeyHash appends what names a key inside its value, so that a reply which belongs
// to another key is seen: its FNV-1a hash.
func appendKeyHash[T string | []byte](b []byte, key T) []byte {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	var sum [8]byte
	binary.BigEndian.PutUint64(sum[:], h)
	return hex.AppendEncode(b, sum[:])
}

func (s *store) claimValue(key, delivery string) string {
	return string(s.appendClaim(nil, []byte(key), delivery))
}

func (s *store) appendClaim(b, key []byte, delivery string) []byte {
	b = appendKeyHash(append(b, "P:"...), key)
	b = append(append(b, ':'), s.node...)
	return append(append(b, ':'), delivery...)
}

func appendConfirm(b, key []byte, delivery string, content archive.Identity) []byte {
	b = appendKeyHash(append(b, "D:"...), key)
	b = append(append(b, ':'), delivery...)
	return hex.AppendEncode(append(b, ':'), content[:])
}

// pairs are the keys and values of n commands, and room for their arguments: all of them in
// three allocations. A string each, and each in an interface, were half of what a claim and
// its confirm allocate.
type pairs struct {
	words []string // key, value, key, value, ...
	args  []any
}

// pair makes the pairs; put appends a key and then its value to b and says where the key ends.
func pair(n, args int, put func(b []byte, i int) (_ []byte, keyEnd int)) pairs {
	room := pairRooms.Get().(*pairRoom)
	defer pairRooms.Put(room)
	b, ends := room.b[:0], room.ends[:0]
	for i := range n {
		var keyEnd int
		b, keyEnd = put(b, i)
		ends = append(ends, keyEnd, len(b))
	}
	room.b, room.ends = b, ends
	p := pairs{words: make([]string, 2*n), args: make([]any, 0, args*n)}
	all, from := string(b), 0
	for i, end := range ends {
		p.words[i] = all[from:end]
		from = end
	}
	return p
}

// pairRoom is where pairs are written before their size is known; at most pipelineLen of them.
type pairRoom struct {
	b    []byte
	ends []int
}

var pairRooms = sync.Pool{New: func() any { return new(pairRoom) }}

func (p *pairs) key(i int) string { return p.words[2*i] }

// set is a SET of the i-th pair. The client takes pointers to strings.
func (p *pairs) set(i int, options ...any) []any {
	from := len(p.args)
	p.args = append(append(p.args, "set", &p.words[2*i], &p.words[2*i+1]), options...)
	return p.args[from:len(p.args):len(p.args)]
}

// judge says what a reply to a claim is worth.
func (s *store) judge(key, val string) reply {
	parts := strings.Split(val, ":")
	if len(parts) != 4 || parts[1] != string(appendKeyHash(nil, key)) {
		return reply{state: replyUnknown}
	}
	switch parts[0] {
	case "P":
		if parts[2] == s.node {
			// Ours: a retry of the same delivery, or a claim of a former life. A twin that
			// is in flight now was found before Redis was asked.
			return reply{state: replyNone}
		}
		if parts[2] == "" || parts[3] == "" {
			return reply{state: replyUnknown}
		}
		return reply{state: replyForeign, node: parts[2], delivery: parts[3]}
	case "D":
		content, err := hex.DecodeString(parts[3])
		if err != nil || len(content) != len(archive.Identity{}) || parts[2] == "" {
			return reply{state: replyUnknown}
		}
		return reply{state: replyDelivered, delivery: parts[2], content: archive.Identity(content)}
	}
	return reply{state: replyUnknown}
}

// exchange runs one pipeline in at most the batch time-out, whatever the client does
// meanwhile; the commands must not be looked at when it returns errNoAnswer.
func (s *store) exchange(ctx context.Context, fill func(redis.Pipeliner)) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	done := make(chan error, 1)
	p := s.client.Pipeline()
	fill(p)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		_, err := p.Exec(ctx)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errNoAnswer
	}
}

// claim asks for all items and answers each; never fails.
func (s *store) claim(ctx context.Context, items []item) []reply {
	out := make([]reply, len(items))
	for i := range out {
		out[i].state = replyUnknown
	}
	for lo := 0; lo < len(items); lo += pipelineLen {
		if s.br.isOpen() {
			return out
		}
		hi := min(lo+pipelineLen, len(items))
		start := time.Now()
		if s.claimBatch(ctx, items[lo:hi], out[lo:hi]) {
			s.claimBatch(ctx, items[lo:hi], out[lo:hi]) // once more, as an old server wants it
		}
		s.met.seconds.Observe(time.Since(start).Seconds())
	}
	return out
}

func (s *store) claimBatch(ctx context.Context, items []item, out []reply) (again bool) {
	old := s.old.Load()
	kv := pair(len(items), 7, func(b []byte, i int) ([]byte, int) {
		from := len(b)
		b = s.appendKey(b, items[i].id)
		end := len(b)
		return s.appendClaim(b, b[from:end], items[i].delivery), end
	})
	cmds := make([]*redis.Cmd, len(items))
	var lease any = s.lease.Milliseconds() // once, not for each command
	err := s.exchange(ctx, func(p redis.Pipeliner) {
		for i := range items {
			if old {
				cmds[i] = claimScript.Eval(ctx, p, kv.words[2*i:2*i+1], kv.words[2*i+1], lease)
			} else {
				cmds[i] = p.Do(ctx, kv.set(i, "nx", "get", "px", lease)...)
			}
		}
	})
	if errors.Is(err, errNoAnswer) {
		s.relearn()
		s.failed(err)
		return false
	}
	failed, away := 0, false
	var last error
	for i, c := range cmds {
		val, err := c.Text()
		switch {
		case errors.Is(err, redis.Nil):
			out[i] = reply{state: replyNone}
		case err != nil:
			if !old && isSyntax(err) {
				s.old.Store(true)
				return true
			}
			failed, last = failed+1, err
			s.met.errors.WithLabelValues(class(err)).Inc()
			away = away || class(err) == "network" || class(err) == "timeout"
		default:
			if out[i] = s.judge(kv.key(i), val); out[i].state == replyUnknown {
				s.met.errors.WithLabelValues("foreign_value").Inc()
			}
		}
	}
	if away {
		s.relearn()
	}
	if failed == len(cmds) && class(last) != "wrongtype" {
		s.failed(last)
	}
	return false
}

// relearn lets a cluster's client ask who owns which slots. By itself it does so once a
// minute, or when it is redirected: of a master that died it would only hear nothing,
// and go on asking it long after its replica has taken over.
func (s *store) relearn() {
	if c, ok := s.client.(*redis.ClusterClient); ok {
		c.ReloadState(context.Background()) // beside us, one at a time
	}
}

// confirm writes confirms and returns those that did not get through.
func (s *store) confirm(ctx context.Context, cs []Claim, window time.Duration) []Claim {
	if s.br.isOpen() {
		return cs
	}
	cmds := make([]*redis.StatusCmd, len(cs))
	kv := pair(len(cs), 5, func(b []byte, i int) ([]byte, int) {
		from := len(b)
		b = s.appendKey(b, cs[i].ID)
		end := len(b)
		return appendConfirm(b, b[from:end], cs[i].Delivery, cs[i].Content), end
	})
	var last time.Duration
	var lasts any // last, for the wire: most have the same
	err := s.exchange(ctx, func(p redis.Pipeliner) {
		for i := range cs {
			w := cs[i].Window
			if w <= 0 {
				w = window
			}
			if w != last {
				last, lasts = w, max(w.Milliseconds(), 1)
			}
			cmds[i] = redis.NewStatusCmd(ctx, kv.set(i, "px", lasts)...)
			_ = p.Process(ctx, cmds[i]) // of a pipeline it only queues
		}
	})
	if errors.Is(err, errNoAnswer) {
		s.failed(err)
		return cs
	}
	var failed []Claim
	for i, c := range cmds {
		if v, err := c.Result(); err != nil || v != "OK" {
			failed = append(failed, cs[i])
			s.met.errors.WithLabelValues(class(err)).Inc()
		}
	}
	return failed
}

// renew prolongs claims; one that Redis does not know (any more) is made again, which
// also heals what was taken while Redis was away.
func (s *store) renew(ctx context.Context, items []item) {
	for lo := 0; lo < len(items) && !s.br.isOpen(); lo += pipelineLen {
		part := items[lo:min(lo+pipelineLen, len(items))]
		cmds := make([]*redis.Cmd, len(part))
		old := s.old.Load()
		err := s.exchange(ctx, func(p redis.Pipeliner) {
			for i := range part {
				key := s.key(part[i].id)
				if old {
					cmds[i] = renewScript.Eval(ctx, p, []string{key}, s.lease.Milliseconds())
				} else {
					cmds[i] = p.Do(ctx, "pexpire", key, s.lease.Milliseconds(), "gt")
				}
			}
		})
		if errors.Is(err, errNoAnswer) {
			s.failed(err)
			return
		}
		var lost []item
		for i, c := range cmds {
			if n, err := c.Int64(); err == nil && n == 0 {
				lost = append(lost, part[i])
			}
		}
		if len(lost) > 0 {
			s.claimBatch(ctx, lost, make([]reply, len(lost)))
		}
	}
}

// release deletes claims that are still ours.
func (s *store) release(ctx context.Context, items []item) {
	for lo := 0; lo < len(items) && !s.br.isOpen(); lo += pipelineLen {
		part := items[lo:min(lo+pipelineLen, len(items))]
		err := s.exchange(ctx, func(p redis.Pipeliner) {
			for i := range part {
				key := s.key(part[i].id)
				releaseScript.Eval(ctx, p, []string{key}, s.claimValue(key, part[i].delivery))
			}
		})
		if errors.Is(err, errNoAnswer) {
			s.failed(err)
		}
	}
}

func (s *store) failed(err error) {
	s.met.errors.WithLabelValues(class(err)).Inc()
	s.br.trip()
	s.met.breaker.Set(1)
}

func (s *store) close() error {
	err := s.client.Close() // ends what was given up and still waits
	s.wg.Wait()
	if err != nil {
		return fmt.Errorf("close redis client: %w", err)
	}
	return nil
}

func isSyntax(err error) bool {
	return strings.HasPrefix(err.Error(), "ERR syntax error")
}

// class names an error for a metric: the server's own code word, or what the network did.
func class(err error) string {
	var se redis.Error
	if err == nil {
		return "odd_reply"
	}
	if errors.Is(err, errNoAnswer) || errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	if !errors.As(err, &se) {
		return "network"
	}
	switch word, _, _ := strings.Cut(err.Error(), " "); word {
	case "WRONGTYPE", "OOM", "READONLY", "LOADING", "NOAUTH", "WRONGPASS", "NOPERM", "MISCONF", "CLUSTERDOWN", "MASTERDOWN":
		return strings.ToLower(word)
	}
	return "other"
}

package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"penstock/archive"
	"penstock/config"
	"penstock/dedupe"
	"penstock/forward"
	"penstock/provider"
)

// epochs turns an epoch document of the archive into what the pump publishes by. A
// definition is compiled once, for all sources that have it: compiled, one takes 200 KB and
// milliseconds, and a thousand sources are mostly of a few providers.
type epochs struct {
	opened  chan struct{} // closed when archive is there
	archive *archive.Archive
	pumps   [2]atomic.Pointer[forward.Pump] // to Kafka, to HTTP targets; nil: none, or not yet
	mu      sync.Mutex
	known   map[uint64]*forward.SourceInfo
	read    map[[sha256.Size]byte]*provider.Definition // by its text
	urls    map[string]string                          // public URL by source, as configured today
	secrets map[string]provider.Credentials            // what sealed deliveries are read with, by source
}

func (e *epochs) source(id, near uint64) (*forward.SourceInfo, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s, ok := e.known[id]; ok {
		return s, nil
	}
	doc, err := e.archive.Epoch(id, near)
	if err != nil {
		return nil, fmt.Errorf("definition of delivery seq=%d: %w", near, err)
	}
	var ep epoch
	if err := json.Unmarshal(doc, &ep); err != nil {
		return nil, fmt.Errorf("read epoch %x: %w", id, err)
	}
	d, err := e.definition(&ep)
	if err != nil {
		return nil, err
	}
	// A sealed delivery waits until the source that it came to is configured again: the
	// keys stand in no epoch, and unread it would be published without its order.
	secrets := e.secrets[ep.Source]
	for _, name := range d.ReadingCredentials() {
		if len(secrets[name]) == 0 {
			return nil, fmt.Errorf("source %s: its deliveries are sealed, and credential %s, which opens them, is not configured", ep.Source, name)
		}
	}
	routes, err := forward.CompileRoutes(ep.Routes)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", ep.Source, err)
	}
	s := &forward.SourceInfo{Name: ep.Source, Provider: ep.Provider, Definition: d, Secrets: secrets, PublicURL: e.urls[ep.Source], Topic: ep.Topic, Key: ep.Key, Routes: routes,
		Window: ep.Window, Group: ep.Group, Tenants: ep.Tenants, Target: ep.Target, NoKafka: ep.NoKafka, LiveOnly: ep.Mode == "live", ByContent: ep.Identity == "body"}
	e.known[id] = s
	return s, nil
}

// maxRead bounds the definitions that are kept compiled: twice the built-in ones.
const maxRead = 400

// definition gives an epoch's, which is immutable. The caller holds mu.
func (e *epochs) definition(ep *epoch) (*provider.Definition, error) {
	text := []byte(ep.Definition)
	sum := sha256.Sum256(text)
	if d, ok := e.read[sum]; ok {
		return d, nil
	}
	d, err := provider.Parse("epoch "+ep.Source, text)
	if err != nil {
		return nil, fmt.Errorf("definition of source %s: %w", ep.Source, err)
	}
	if e.read == nil || len(e.read) >= maxRead {
		e.read = map[[sha256.Size]byte]*provider.Definition{}
	}
	e.read[sum] = d
	return d, nil
}

// open hands over the archive, which was opened with fields as its extractor: until then
// fields waits.
func (e *epochs) open(a *archive.Archive, c *config.Config) {
	e.setURLs(c)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.archive = a
	close(e.opened)
}

// setURLs takes over what the sources' public URLs are today.
func (e *epochs) setURLs(c *config.Config) {
	urls, secrets := map[string]string{}, map[string]provider.Credentials{}
	for i := range c.Sources {
		s := &c.Sources[i]
		urls[s.Name], secrets[s.Name] = s.URL(), readingSecrets(s)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.urls, e.secrets = urls, secrets
	clear(e.known)
}

// readingSecrets are the credentials of a source that sealed deliveries are read with.
func readingSecrets(s *config.Source) provider.Credentials {
	d, ok := s.Definition.(*provider.Definition)
	if !ok {
		return nil
	}
	var out provider.Credentials
	for _, name := range d.ReadingCredentials() {
		for _, v := range s.Credentials[name] {
			if out == nil {
				out = provider.Credentials{}
			}
			out[name] = append(out[name], v.Reveal())
		}
	}
	return out
}

// knows gives the index the fields of what a pump has read already.
func (e *epochs) knows(seq uint64) (f archive.Fields, ok bool) {
	for i := range e.pumps {
		if p := e.pumps[i].Load(); p != nil && !ok {
			f, ok = p.Known(seq)
		}
	}
	return f, ok
}

// fields is the index's extractor for deliveries that have no outcome yet.
func (e *epochs) fields(d *archive.Delivery) (archive.Fields, bool) {
	<-e.opened
	s, err := e.source(d.Epoch, d.Seq)
	if err != nil {
		return archive.Fields{}, false
	}
	return forward.Fields(d, s)
}

// tells is what the events of a delivery tell.
func (e *epochs) tells(d *archive.Delivery) []forward.Told {
	<-e.opened
	s, err := e.source(d.Epoch, d.Seq)
	if err != nil {
		return nil
	}
	return forward.Tells(d, s)
}

func redisOptions(r *config.Redis) (*dedupe.RedisOptions, error) {
	if r == nil {
		return nil, nil
	}
	o := &dedupe.RedisOptions{Addresses: r.Addresses, Username: r.Username, Password: r.Password.Reveal(), DB: r.DB, Prefix: r.Prefix, Cluster: r.Cluster}
	if s := r.Sentinel; s != nil {
		o.Master, o.SentinelUsername, o.SentinelPassword = s.Master, s.Username, s.Password.Reveal()
	}
	var err error
	o.TLS, err = clientTLS(r.TLS)
	return o, err
}

func kafkaOptions(k *config.Kafka) (forward.KafkaOptions, error) {
	o := forward.KafkaOptions{Brokers: k.Brokers, ClientID: k.ClientID, MaxBatchBytes: int(k.MaxMessageBytes), MaxInFlightBytes: int64(k.MaxInFlightBytes)}
	var err error
	if o.Compression, err = forward.ParseCompression(k.Compression); err != nil {
		return o, err
	}
	if c := k.CreateTopics; c != nil {
		o.CreateTopics = &forward.CreateTopics{Partitions: c.Partitions, Replication: c.Replication}
	}
	if s := k.SASL; s != nil {
		o.SASL = &forward.SASLOptions{Mechanism: strings.ToUpper(s.Mechanism), Username: s.Username, Password: s.Password.Reveal()}
	}
	o.TLS, err = clientTLS(k.TLS)
	return o, err
}

// clientTLS is TLS towards a server of ours; nil where it is not configured.
func clientTLS(c *config.ClientTLS) (*tls.Config, error) {
	if c == nil || !c.Enabled {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CA != "" {
		pool, err := certPool(c.CA)
		if err != nil {
			return nil, err
		}
		t.RootCAs = pool
	}
	if c.Cert != "" {
		cert, err := tls.LoadX509KeyPair(strings.TrimPrefix(c.Cert, "file:"), strings.TrimPrefix(c.Key, "file:"))
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}

// nodeName is what this node calls itself in claims: the host's name serves people, and
// the archive's node id behind it keeps two gateways on one host apart.
func nodeName(a *archive.Archive) string {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return fmt.Sprintf("%s-%s", strings.Map(func(r rune) rune {
		if r == ':' || r <= ' ' {
			return '-'
		}
		return r
	}, host), a.Node())
}

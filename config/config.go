// Package config reads the YAML file: strictly, with every mistake at once and each by
// file, line and column. What it gives out is an immutable value; a reload makes a new
// one (Watch). It knows nothing of HTTP or Kafka, and of providers only what the
// Catalogue that main hands in tells.
//
// The struct tags are the reference: yaml is the key, default what stands in force
// without it, doc what it means. The decoder, the JSON Schema and the documentation are
// made from the same tags. live says that a reload changes it; the rest wants a restart
// (Diff). Every single value may be env:NAME; secrets may be file:PATH too.
package config

import (
	"net/url"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Config is one configuration in force. Nobody writes to it once it was loaded.
type Config struct {
	Ingest  Ingest   `yaml:"ingest" doc:"the listener that providers call"`
	Admin   Admin    `yaml:"admin" doc:"the listener of operators: API, page, health, metrics"`
	Archive Archive  `yaml:"archive" required:"true" doc:"where deliveries are kept"`
	Dedupe  Dedupe   `yaml:"dedupe" doc:"how repeats are known"`
	Forward *Forward `yaml:"forward" doc:"where events go; without it deliveries are kept and nothing is published"`
	Sources []Source `live:"true" yaml:"sources" required:"true" doc:"the endpoints"`
	Notify  Notify   `live:"true" yaml:"notify" doc:"who is told of what; see docs/notifications.md"`
	Log     Log      `yaml:"log" doc:"the process log"`
	Tracing *Tracing `yaml:"tracing" doc:"OpenTelemetry traces of batches; off without it"`

	Path     string   `yaml:"-" json:"-"` // the file it was read from
	Files    []string `yaml:"-" json:"-"` // that file, and every secret and certificate file it names
	Warnings []string `yaml:"-" json:"-"` // "file:line:col: path: message", in order

	// The file's bytes, and a digest over them and all that they refer to. Funcs, so that
	// no %+v prints the secrets in it.
	text func() []byte
	sum  func() [32]byte
}

// Ingest is the listener that providers call.
type Ingest struct {
	Listen         string         `yaml:"listen" default:"127.0.0.1:8080" check:"listen" doc:"address and port"`
	Path           string         `live:"true" yaml:"path" default:"/in/{source}" check:"path" doc:"path of a source; {source} is its name"`
	PublicURL      string         `live:"true" yaml:"public_url" check:"url" doc:"origin that providers call; for schemes that sign the URL"`
	TrustedProxies []string       `yaml:"trusted_proxies" check:"cidr" doc:"peers whose X-Forwarded-For is believed; none by default"`
	MaxBody        Size           `live:"true" yaml:"max_body" default:"10MiB" min:"1KiB" max:"256MiB" doc:"largest body; unset also allows a provider's larger documented maximum"`
	IPListRefresh  time.Duration  `yaml:"ip_list_refresh" default:"24h" min:"0s" max:"366d" doc:"how often the providers' published addresses are looked up where allow_ips says provider; 0s = never, the shipped lists stay"`
	MaxInFlight    Size           `yaml:"max_in_flight" default:"256MiB" min:"1MiB" doc:"sum of the bodies in flight; above it 503"`
	MaxConnections int            `yaml:"max_connections" default:"8192" min:"1" max:"1000000" doc:"open connections"`
	MaxConnsPerIP  int            `yaml:"max_conns_per_ip" default:"0" min:"0" max:"1000000" doc:"open connections of one address; 0 = no bound of its own"`
	ReadTimeout    time.Duration  `yaml:"read_timeout" default:"30s" min:"1s" max:"10m" doc:"for a whole request"`
	WriteTimeout   time.Duration  `yaml:"write_timeout" default:"10s" min:"1s" max:"10m" doc:"for an answer"`
	IdleTimeout    time.Duration  `yaml:"idle_timeout" default:"75s" min:"1s" max:"1h" doc:"for a connection without a request"`
	DrainTimeout   time.Duration  `yaml:"drain_timeout" default:"5s" min:"1s" max:"9s" doc:"what SIGTERM gives to requests in flight; the process ends within 10 s whatever happens"`
	ProxyProtocol  *ProxyProtocol `yaml:"proxy_protocol" doc:"PROXY protocol v1 and v2 in front"`
	TLS            *TLS           `yaml:"tls" doc:"TLS 1.2 and up; files are read again when they change"`
}

// ProxyProtocol says from whom a PROXY header is taken; others may not send one.
type ProxyProtocol struct {
	Trusted []string `yaml:"trusted" required:"true" check:"cidr" doc:"peers that send the header"`
}

// TLS names files in PEM. `file:` before a path is allowed and means the same.
type TLS struct {
	Cert     string `yaml:"cert" required:"true" check:"pem" doc:"certificate chain"`
	Key      string `yaml:"key" required:"true" check:"pem" doc:"private key"`
	ClientCA string `yaml:"client_ca" check:"pem" doc:"client certificates must be signed by one of these"`
}

// Admin is the listener of operators.
type Admin struct {
	Listen    string  `yaml:"listen" default:"127.0.0.1:8081" check:"listen" doc:"address and port; another address than loopback wants a token, or oidc"`
	PublicURL string  `yaml:"public_url" check:"url" doc:"where people open the page and consumers fetch bodies; for links and payload_ref; unset = listen, where that is one address"`
	Tokens    []Token `live:"true" yaml:"tokens" doc:"who may ask; without any, loopback is open to all on the machine"`
	TLS       *TLS    `yaml:"tls" doc:"TLS 1.2 and up"`
	OIDC      *OIDC   `yaml:"oidc" doc:"login of people by an identity provider (OpenID Connect)"`
	AuditSize Size    `yaml:"audit_size" default:"64MiB" min:"1MiB" max:"16GiB" doc:"how much of the audit log is kept, in audit/ of the archive's directory"`
}

// Token is one bearer token of the admin API.
type Token struct {
	Name    string   `yaml:"name" required:"true" check:"name" doc:"who; stands in the audit log"`
	Role    string   `yaml:"role" default:"viewer" enum:"viewer|operator|consumer" doc:"viewer sees masked bodies, operator may act, consumer sees the bodies of its sources"`
	Token   Secret   `yaml:"token" required:"true" doc:"at least 8 bytes"`
	Sources []string `yaml:"sources" doc:"for a consumer: its sources"`
}

// OIDC is the login of people by an identity provider.
type OIDC struct {
	Issuer       string    `yaml:"issuer" required:"true" check:"url" doc:"as the provider names itself, to the letter; /.well-known/openid-configuration is looked up under it"`
	ClientID     string    `yaml:"client_id" required:"true" doc:"of this gateway at the provider"`
	ClientSecret Secret    `yaml:"client_secret" doc:"its secret; unset = a public client (PKCE is used either way)"`
	RedirectURL  string    `yaml:"redirect_url" check:"url" doc:"as registered at the provider, ending in /login/oidc/callback; unset = that under admin.public_url"`
	Scopes       []string  `yaml:"scopes" doc:"asked for beside openid; unset = profile, email"`
	Roles        OIDCRoles `yaml:"roles" required:"true" doc:"who may do what"`
}

// OIDCRoles gives people their role by a claim. Who is named by neither list is refused.
type OIDCRoles struct {
	Claim    string   `yaml:"claim" default:"groups" doc:"claim of the ID token, a text or a list; a nested one by its steps: realm_access.roles"`
	Viewer   []string `yaml:"viewer" doc:"values of the claim that make a viewer"`
	Operator []string `yaml:"operator" doc:"values that make an operator, who counts where both fit"`
}

// Archive is where deliveries are kept.
type Archive struct {
	Dir         string      `yaml:"dir" required:"true" doc:"directory of this process alone, relative to the working directory"`
	Retention   Retention   `yaml:"retention" doc:"when whole segments go, oldest first; never what a sink has not had"`
	Quarantine  Quarantine  `yaml:"quarantine" doc:"refused deliveries"`
	SegmentSize Size        `yaml:"segment_size" default:"64MiB" min:"1MiB" max:"1GiB" doc:"size of one file of the log"`
	Encryption  *Encryption `yaml:"encryption" doc:"encrypts what is archived from then on, and keeps sealed what the API and handshakes deliver: merchants' credentials, captured secrets"`
	Reserve     int         `yaml:"reserve" default:"5" min:"0" max:"50" doc:"percent of the disk kept free; at it ingest answers 503"`
}

// Encryption is the archive's key. It wraps the keyring that deliveries are encrypted under,
// and seals the vault.
type Encryption struct {
	Key      Secret   `yaml:"key" required:"true" doc:"32 bytes in hexadecimal or base64 (openssl rand -hex 32)"`
	Previous []Secret `yaml:"previous" doc:"keys that were in force before: what they sealed is sealed again under key"`
}

// Retention is when deliveries go. Zero means no bound.
type Retention struct {
	Age  time.Duration `yaml:"age" default:"0s" doc:"how long deliveries are kept; 0s = for ever"`
	Size Size          `yaml:"size" default:"0B" doc:"how much is kept; 0B = no bound"`
}

// Quarantine is the budget of refused deliveries.
type Quarantine struct {
	Size Size `yaml:"size" default:"1GiB" min:"1MiB" doc:"how much is kept, shared by the sources"`
}

// Dedupe is how repeats are known.
type Dedupe struct {
	Window time.Duration `live:"true" yaml:"window" default:"8d" min:"1m" doc:"how long a repeat is known; at least the providers' retry horizon"`
	Redis  *Redis        `yaml:"redis" doc:"shared memory of several nodes; without it the archive's own index answers"`
}

// Redis is how to reach it.
type Redis struct {
	Addresses []string      `yaml:"addresses" required:"true" check:"hostport" doc:"one server, the nodes of a cluster, or the sentinels"`
	Username  string        `yaml:"username" doc:"ACL user"`
	Password  Secret        `yaml:"password" short:"true" doc:"its password"`
	DB        int           `yaml:"db" default:"0" min:"0" max:"1024" doc:"database number"`
	Prefix    string        `yaml:"prefix" default:"penstock" check:"name" doc:"first part of every key"`
	TLS       *ClientTLS    `yaml:"tls" doc:"TLS to the server"`
	Sentinel  *Sentinel     `yaml:"sentinel" doc:"addresses are sentinels"`
	Cluster   bool          `yaml:"cluster" default:"false" doc:"addresses are nodes of a Redis Cluster"`
	Timeout   time.Duration `yaml:"timeout" default:"100ms" min:"5ms" max:"2s" doc:"for a batch of questions; then the local index answers"`
}

// Sentinel names the master that sentinels watch.
type Sentinel struct {
	Master   string `yaml:"master" required:"true" doc:"name of the master"`
	Username string `yaml:"username" doc:"ACL user at the sentinels"`
	Password Secret `yaml:"password" short:"true" doc:"password at the sentinels"`
}

// ClientTLS is TLS towards a server of ours. The server's certificate is always checked.
type ClientTLS struct {
	Enabled    bool   `yaml:"enabled" default:"true" doc:"false switches it off"`
	CA         string `yaml:"ca" check:"pem" doc:"who signs the server's certificate; unset = the system's"`
	Cert       string `yaml:"cert" check:"pem" doc:"client certificate"`
	Key        string `yaml:"key" check:"pem" doc:"its private key"`
	ServerName string `yaml:"server_name" doc:"name in the server's certificate where it is not the address"`
}

// Forward is where events go.
type Forward struct {
	Start     string  `yaml:"start" default:"oldest" enum:"oldest|now" doc:"where a sink that was never there before begins"`
	Kafka     *Kafka  `yaml:"kafka" doc:"the brokers; this, http or both"`
	HTTP      *HTTP   `yaml:"http" doc:"where every accepted request is sent on to as it came, for sources without a target of their own"`
	DrainRate int     `yaml:"drain_rate" default:"10000" min:"1" max:"1000000" doc:"events per second at which a source that was paused, or without its definition, catches up; keep it above what the source receives"`
	Routes    []Route `live:"true" yaml:"routes" doc:"topics by what an event says, in order; what none takes goes to kafka.topic"`
}

// HTTP is a place that accepted requests are sent on to: method, query, headers and body
// as they were received.
type HTTP struct {
	URL            string        `live:"true" yaml:"url" required:"true" check:"target" doc:"where they go; the query of a request is added to it"`
	Secrets        []Secret      `live:"true" yaml:"secrets" doc:"what we sign with (Standard Webhooks), the newest first; several while the receiver changes over; none = not signed"`
	Timeout        time.Duration `live:"true" yaml:"timeout" default:"15s" min:"100ms" max:"5m" doc:"for one attempt"`
	Concurrency    int           `live:"true" yaml:"concurrency" default:"8" min:"1" max:"1000" doc:"requests at once"`
	RetryFor       time.Duration `live:"true" yaml:"retry_for" default:"5d" min:"1m" max:"90d" doc:"from receipt; what got no 2xx by then becomes a dead letter"`
	MaxPause       time.Duration `live:"true" yaml:"max_pause" default:"15m" min:"100ms" max:"1d" doc:"longest pause between two attempts; pauses are random and their bound doubles from one second"`
	AllowAddresses []string      `live:"true" yaml:"allow_addresses" check:"cidr" doc:"networks beside the public internet that the url may lead to: 127.0.0.0/8 and ::1/128 for this machine, 10.0.0.0/8 for a private one"`
	TLS            *ClientTLS    `live:"true" yaml:"tls" doc:"TLS to the target"`
}

// SourceForward is where the deliveries of one source go.
type SourceForward struct {
	HTTP  *HTTP `yaml:"http" doc:"a target of its own in place of forward.http"`
	Kafka bool  `yaml:"kafka" default:"true" doc:"false: not to Kafka"`
}

// Kafka is how to reach it and what goes where.
type Kafka struct {
	Brokers          []string      `yaml:"brokers" required:"true" check:"hostport" doc:"bootstrap addresses"`
	Topic            string        `live:"true" yaml:"topic" default:"webhooks.{provider}" check:"topic" doc:"where events go; {provider}, {source}, {tenant}, {family} and {type} are filled in"`
	Key              string        `live:"true" yaml:"key" check:"key" doc:"key of the records; placeholders as in topic, and {entity}; unset = {entity}: the payment, order, repository"`
	DeadLetterTopic  string        `yaml:"dead_letter_topic" default:"webhooks.dead" check:"topic" doc:"where goes what cannot be published"`
	CreateTopics     *CreateTopics `yaml:"create_topics" doc:"make a missing topic at its first event; without it nothing is created"`
	Compression      string        `yaml:"compression" default:"zstd" enum:"none|gzip|snappy|lz4|zstd" doc:"of record batches"`
	ClientID         string        `yaml:"client_id" default:"penstock" check:"name" doc:"name in the broker's logs and quotas"`
	TLS              *ClientTLS    `yaml:"tls" doc:"TLS to the brokers"`
	SASL             *SASL         `yaml:"sasl" doc:"login at the brokers"`
	MaxMessageBytes  Size          `yaml:"max_message_bytes" default:"1000000B" min:"10KiB" max:"256MiB" doc:"the brokers' message.max.bytes or less; larger events go as a pointer to the archive"`
	MaxInFlightBytes Size          `yaml:"max_in_flight_bytes" default:"16MiB" min:"1MiB" max:"4GiB" doc:"bound of what waits for acks in memory"`
}

// CreateTopics is how missing topics are made.
type CreateTopics struct {
	Partitions  int `yaml:"partitions" default:"6" min:"1" max:"10000" doc:"partitions of a new topic"`
	Replication int `yaml:"replication" default:"1" min:"1" max:"100" doc:"replicas of a new topic"`
}

// SASL is a login at Kafka.
type SASL struct {
	Mechanism string `yaml:"mechanism" default:"scram-sha-512" enum:"plain|scram-sha-256|scram-sha-512" doc:"how to log in; plain only over TLS, unless the network is yours"`
	Username  string `yaml:"username" required:"true" doc:"user"`
	Password  Secret `yaml:"password" required:"true" short:"true" doc:"its password"`
}

// Tracing is where traces go.
type Tracing struct {
	Endpoint string  `yaml:"endpoint" required:"true" check:"url" doc:"OTLP over HTTP, such as http://127.0.0.1:4318; headers that it wants stand in the variable OTEL_EXPORTER_OTLP_HEADERS"`
	Sample   float64 `yaml:"sample" default:"0.05" min:"0" max:"1" doc:"share of the batches that are traced"`
}

// Log is the process log.
type Log struct {
	Level  string `yaml:"level" default:"info" enum:"debug|info|warn|error" doc:"least severe line that is written"`
	Format string `yaml:"format" default:"json" enum:"json|console" doc:"one JSON object a line, or text for people"`
}

// Source is one endpoint. After Load the fields that may be left out hold what is in
// force: Path, PublicURL, MaxBody, Dedupe.Window.
type Source struct {
	Name        string              `yaml:"name" required:"true" check:"source" doc:"name in the URL, the topic, the metrics"`
	Provider    string              `yaml:"provider" required:"true" raw:"provider" doc:"a name of the catalogue, or a definition written here"`
	Credentials map[string][]Secret `yaml:"credentials" raw:"credentials" doc:"what the provider verifies with; a list = several are valid at once"`
	Path        string              `yaml:"path" check:"path" doc:"path of its own in place of ingest.path"`
	PublicURL   string              `yaml:"public_url" check:"url" doc:"what this provider calls: an origin, or with a path the whole URL"`
	AllowIPs    []string            `yaml:"allow_ips" check:"allow" doc:"addresses that may call: CIDRs, addresses, or provider for its published list; unset = all"`
	Dedupe      SourceDedupe        `yaml:"dedupe" doc:"of this source"`
	Forward     SourceForward       `yaml:"forward" doc:"where its deliveries go"`
	Ack         SourceAck           `yaml:"ack" doc:"when the provider is answered"`
	AllowMode   string              `yaml:"allow_ips_mode" default:"enforce" enum:"enforce|shadow" doc:"shadow: nobody is refused for the address; what would have been is logged and counted"`
	MaxBody     Size                `yaml:"max_body" min:"1KiB" max:"256MiB" doc:"largest body; unset = ingest.max_body"`
	Tolerance   *time.Duration      `yaml:"tolerance" min:"0s" max:"366d" doc:"how far a signed timestamp may be off; 0s = not checked; unset = as the provider says"`
	Mode        string              `yaml:"mode" enum:"live|test" doc:"live: test events never go out as money; test: public sample secrets are allowed"`
	Topic       string              `yaml:"topic" check:"topic" doc:"topic of its own in place of forward.kafka.topic"`
	Key         string              `yaml:"key" check:"key" doc:"key of its own in place of forward.kafka.key"`
	Routes      []Route             `yaml:"routes" doc:"routes of its own in place of forward.routes; [] = none"`
	Rate        *Rate               `yaml:"rate" doc:"above it 429"`
	ClientCA    string              `yaml:"client_ca" check:"pem" doc:"client certificates of this provider (mTLS); wants ingest.tls"`
	Settings    map[string]string   `yaml:"settings" doc:"knobs of the provider's scheme, such as algorithm: sha3-256"`
	Paused      bool                `yaml:"paused" default:"false" doc:"true: taken, kept and answered, published when it is false again"`

	// Tenants are the merchants behind the source, by the name that deliveries give them;
	// nil where there is one alone, empty where all of them are put by the API.
	Tenants     map[string]map[string][]Secret `yaml:"-" json:"-"`
	tenantTexts []tenantText

	Definition any    `yaml:"-" json:"-"` // the catalogue's handle of the definition
	Inline     bool   `yaml:"-"`          // the definition stands in this file
	Line       int    `yaml:"-" json:"-"` // where the source begins
	Col        int    `yaml:"-" json:"-"`
	inlineText string // the inline definition's text, for Digest and Diff
}

// SourceDedupe is how repeats of one source are known.
type SourceDedupe struct {
	Window   time.Duration `yaml:"window" min:"1m" doc:"unset = dedupe.window"`
	Group    string        `yaml:"group" check:"name" doc:"sources of one group know each other's events"`
	Identity string        `yaml:"identity" enum:"body" doc:"body: the hash of the signed content stands for the event id; unset = as the provider says"`
}

// SourceAck is what a 2xx of one source means.
type SourceAck struct {
	After      string        `yaml:"after" default:"archived" enum:"archived|published|upstream" doc:"archived: it is on this node's disk; published: Kafka has it; upstream: the HTTP target has answered, and its answer goes to the provider"`
	Deadline   time.Duration `yaml:"deadline" default:"4s" min:"100ms" max:"2m" doc:"for published and upstream: then 503 with Retry-After; the delivery is kept and sent anyway"`
	MaxWaiting int           `yaml:"max_waiting" default:"1024" min:"1" max:"100000" doc:"for published and upstream: answers that wait at once; above it 503"`
}

// The values of SourceAck.After.
const (
	AfterArchived  = "archived"
	AfterPublished = "published"
	AfterUpstream  = "upstream"
)

// Rate is how many deliveries a source takes.
type Rate struct {
	PerSecond float64 `yaml:"per_second" required:"true" min:"0.001" max:"1000000" doc:"sustained"`
	Burst     int     `yaml:"burst" default:"0" min:"0" max:"1000000" doc:"at once; 0 = one second's worth"`
}

// URL is what the provider calls, or "" where no public_url is known.
func (s *Source) URL() string {
	if s.PublicURL == "" {
		return ""
	}
	if u, err := url.Parse(s.PublicURL); err == nil && u.Path != "" && u.Path != "/" {
		return s.PublicURL
	}
	return strings.TrimSuffix(s.PublicURL, "/") + s.Path
}

// URLOf is what the provider called: the source's address with the query of target. Some
// sign both.
func (s *Source) URLOf(target string) string {
	u := s.URL()
	if i := strings.IndexByte(target, '?'); i >= 0 && u != "" && !strings.Contains(u, "?") {
		u += target[i:]
	}
	return u
}

// Catalogue is what config asks about providers; main fills it.
type Catalogue interface {
	// Provider gives the definition of that name.
	Provider(name string) (ProviderInfo, bool)
	// Names lists all, for suggestions.
	Names() []string
	// Inline compiles a definition that stands in a source. Its errors keep the file's
	// positions: they are goccy errors, or begin with "line:column: ", or are several
	// such joined.
	Inline(node ast.Node) (ProviderInfo, error)
	// Route says what is wrong with the expression of a route; its message begins with
	// the place in the expression, "line:column: ".
	Route(when string) error
	// Where says the same of the condition of an event notification.
	Where(where string) error
}

// ProviderInfo is what a definition wants of a source.
type ProviderInfo struct {
	Name         string
	Credentials  []CredentialSpec
	MaxBody      int64         // the provider's documented maximum, 0 = none
	RetryHorizon time.Duration // how long it repeats, 0 = unknown; a shorter window is warned of
	HasIPs       bool          // it publishes its addresses: allow_ips may say "provider"
	Tenant       string        // the credential that names the merchant, where one does
	TenantError  string        // why a source of it cannot have many merchants, "" = it can
	Captures     string        // the credential that a handshake delivers, "" = none
	Handle       any           // the definition itself, opaque here
}

// CredentialSpec is one credential that a definition knows.
type CredentialSpec struct {
	Name     string
	Secret   bool   // has a least length; merchant ids, public keys, user names do not
	Required bool   //
	About    string // one line, for errors
	AnyOf    string // of the credentials of one group at least one is wanted
}

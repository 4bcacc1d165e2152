package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"

	"penstock/provider"
	"penstock/verify"
)

func devCommand() *command {
	return &command{name: "dev", short: "everything in one process, nothing to install", long: `
Every provider of the catalogue is a source named after it. An in-memory Redis and a
Kafka-protocol broker run inside; any Kafka client can consume. DIR/penstock.yaml is the
configuration in force, written anew at every start, with the credentials in plain text:
any program can sign with them. Archive and broker are kept in DIR together; when one of
them is gone or does not open, both are set aside and new ones begun.

It is for development: one broker without replicas, secrets in a file.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			d := &dev{app: a}
			fs.StringVar(&d.ingest, "ingest", "127.0.0.1:8080", "`ADDR` that providers call")
			fs.StringVar(&d.admin, "admin", "127.0.0.1:8081", "`ADDR` of page, API and metrics")
			fs.StringVar(&d.kafka, "kafka", "127.0.0.1:9092", "`ADDR` of the Kafka-protocol broker")
			fs.StringVar(&d.dir, "dir", devDir, "`DIR` for everything that is kept")
			return func(ctx context.Context, args []string) int {
				if len(args) > 0 {
					return a.usageError("dev", "unexpected argument %q", args[0])
				}
				return d.run(ctx)
			}
		}}
}

// dev is one run of `penstock dev`.
type dev struct {
	app                       *app
	ingest, admin, kafka, dir string
	redis                     string // chosen by the system
}

func (d *dev) run(ctx context.Context) int {
	a := d.app
	stop, err := d.start()
	if err != nil {
		return a.fail(exitFound, "dev: %v", err)
	}
	defer stop()
	file := devConfig(d.dir)
	c, ok := a.load(file)
	if !ok {
		return exitFound
	}
	if err := a.w.Serve(ctx, c, ServeOptions{Hup: a.Hup, Log: a.Stderr, Dev: true, Ready: d.greet}); err != nil {
		return a.fail(exitFound, "%v", err)
	}
	return exitOK
}

// start makes the directory, starts Redis and Kafka, and writes the configuration.
func (d *dev) start() (stop func(), err error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	for flag, addr := range map[string]*string{"--ingest": &d.ingest, "--admin": &d.admin, "--kafka": &d.kafka} {
		if *addr, err = resolveAddr(*addr); err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
	}
	creds, err := d.credentials()
	if err != nil {
		return nil, err
	}
	cluster, err := d.startKafka()
	if err != nil {
		return nil, err
	}
	redis, err := startRedis()
	if err != nil {
		cluster.Close()
		return nil, err
	}
	d.redis = redis.Addr()
	stop = func() { redis.Close(); cluster.Close() }
	if err := d.writeConfig(creds); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// resolveAddr checks that an address is free, and takes a free port for port 0: the
// configuration in force must name the real one.
func resolveAddr(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%q is no address with a port; write 127.0.0.1:8080", addr)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("%s cannot be listened on (is another penstock dev running?): %w", addr, err)
	}
	_, real, _ := net.SplitHostPort(ln.Addr().String())
	if err := ln.Close(); err != nil {
		return "", err
	}
	if port == "0" {
		port = real
	}
	return net.JoinHostPort(host, port), nil
}

// startRedis starts the in-memory Redis. Its keys expire by the clock: nobody drives it.
func startRedis() (*miniredis.Miniredis, error) {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true)
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start the in-memory Redis: %w", err)
	}
	return m, nil
}

func (d *dev) archiveDir() string { return filepath.Join(d.dir, "archive") }
func (d *dev) kafkaDir() string   { return filepath.Join(d.dir, "kafka") }

// startKafka opens the broker on what it kept. Archive and broker belong together: the
// archive says what the broker has. With one of them gone, both begin anew.
func (d *dev) startKafka() (*kfake.Cluster, error) {
	if hasFiles(d.archiveDir()) != hasFiles(d.kafkaDir()) {
		if err := d.setAside("only one of archive and broker is there"); err != nil {
			return nil, err
		}
	}
	cluster, err := d.openKafka()
	if err == nil || !hasFiles(d.kafkaDir()) || errors.Is(err, errListen) {
		return cluster, err
	}
	if err := d.setAside(fmt.Sprintf("the broker's files do not open (%v)", err)); err != nil {
		return nil, err
	}
	return d.openKafka()
}

var errListen = errors.New("listen for Kafka")

func (d *dev) openKafka() (*kfake.Cluster, error) {
	fresh := !hasFiles(d.kafkaDir())
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.DataDir(d.kafkaDir()), kfake.AllowAutoTopicCreation(), kfake.DefaultNumPartitions(6),
		// The address is ours, whatever address kfake would take.
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			ln, err := net.Listen(network, d.kafka)
			if err != nil {
				return nil, fmt.Errorf("%w on %s: %w", errListen, d.kafka, err)
			}
			return ln, nil
		})}
	if fresh {
		// A cluster's id is part of every dedupe identity, so a new broker is a new one.
		id, err := randomHex(11)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kfake.ClusterID("dev-"+id))
	}
	return kfake.NewCluster(opts...)
}

// setAside moves archive and broker away together; nothing is deleted.
func (d *dev) setAside(why string) error {
	to := filepath.Join(d.dir, "old-"+time.Now().UTC().Format("20060102T150405.000"))
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	for _, dir := range []string{d.archiveDir(), d.kafkaDir()} {
		if err := os.Rename(dir, filepath.Join(to, filepath.Base(dir))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	fmt.Fprintf(d.app.Stderr, "dev: %s: both begin anew, the old ones are in %s\n", why, to)
	return nil
}

func hasFiles(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) > 0
}

// devSecrets is what dev keeps between starts beside the data: DIR/credentials.json.
type devSecrets struct {
	AdminToken  string                          `json:"admin_token"`
	Credentials map[string]provider.Credentials `json:"credentials"`
}

// credentials reads the made-up credentials, and makes those that are missing: at the
// first start all, after an upgrade those of new providers.
func (d *dev) credentials() (*devSecrets, error) {
	path := filepath.Join(d.dir, "credentials.json")
	s := &devSecrets{}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(b, s); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if s.Credentials == nil {
		s.Credentials = map[string]provider.Credentials{}
	}
	if s.AdminToken == "" {
		if s.AdminToken, err = randomHex(16); err != nil {
			return nil, err
		}
	}
	for _, name := range d.app.w.Providers.Names() {
		def, ok := d.app.w.Providers.Get(name)
		if !ok || s.Credentials[name] != nil {
			continue
		}
		if s.Credentials[name], err = verify.DevCredentials(def, randomReader); err != nil {
			return nil, err
		}
	}
	b, err = json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, err
	}
	return s, replaceFile(path, append(b, '\n'))
}

// replaceFile writes beside and renames, so that nobody reads half a file.
func replaceFile(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func randomHex(n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(randomReader, b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}

// greet prints the addresses and the next command to try.
func (d *dev) greet() {
	a := d.app
	again := ""
	if filepath.Clean(d.dir) != filepath.Clean(devDir) {
		again = " --dir " + d.dir
	}
	admin := again
	if again == "" && d.admin != "127.0.0.1:8081" {
		admin = " --dir " + d.dir
	}
	fmt.Fprintf(a.Stdout, `%s
  ingest  %s/in/PROVIDER
  admin   %s
  kafka   %s   (topics webhooks.PROVIDER)
  config  %s   (credentials and admin token in plain text)

Try in another terminal:
  penstock send stripe --count 3%s
  penstock deliveries list%s
  kcat -b %s -t webhooks.stripe -C -e

Real providers reach it through any tunnel to the ingest address, with secrets of your own
in a configuration for penstock serve.
`, a.paint(bold, "penstock dev is up"), baseURL(d.ingest, false), baseURL(d.admin, false), d.kafka, devConfig(d.dir), again, admin, d.kafka)
}

package cli

import (
	"bufio"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/config"
	"penstock/provider"
)

// redisAsks speaks one command to Redis.
func redisAsks(t *testing.T, addr, command string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(command + "\r\n")); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// devRun runs `penstock dev` with a gateway that looks at its configuration and ends.
func devRun(t *testing.T, w *world, dir string, look func(c *config.Config)) {
	t.Helper()
	served := false
	w.wiring.Serve = func(_ context.Context, c *config.Config, o ServeOptions) error {
		served = true
		if !o.Dev || o.Ready == nil {
			t.Error("dev does not say so to Serve")
		}
		if got := redisAsks(t, c.Dedupe.Redis.Addresses[0], "*1\r\n$4\r\nPING"); got != "+PONG" {
			t.Errorf("redis answers %q", got)
		}
		conn, err := net.DialTimeout("tcp", c.Forward.Kafka.Brokers[0], 5*time.Second)
		if err != nil {
			t.Errorf("kafka: %v", err)
		} else {
			_ = conn.Close()
		}
		o.Ready()
		look(c)
		return nil
	}
	w.want(exitOK, "penstock send stripe", "dev", "--dir", dir, "--ingest", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--kafka", "127.0.0.1:0")
	if !served {
		t.Fatalf("not served: %s", w.err.String())
	}
}

// signable: any program can sign with what stands in the file.
func signable(t *testing.T, s *config.Source) {
	t.Helper()
	v, err := signerOf(s)
	if err != nil {
		t.Errorf("%s: %v", s.Name, err)
		return
	}
	r, err := s.Definition.(*provider.Definition).Sample("", provider.SampleParams{})
	if err != nil {
		t.Errorf("%s: %v", s.Name, err)
		return
	}
	r.PublicURL = s.URL()
	if err := v.Sign(r, time.Now()); err != nil {
		t.Errorf("%s: %v", s.Name, err)
	}
}

func TestDev(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "dev")
	var first *config.Config
	devRun(t, w, dir, func(c *config.Config) {
		first = c
		if len(c.Sources) != len(w.wiring.Providers.Names()) {
			t.Errorf("%d sources of %d providers", len(c.Sources), len(w.wiring.Providers.Names()))
		}
		for i := range c.Sources {
			s := &c.Sources[i]
			if s.Name != s.Provider {
				t.Errorf("source %s is of %s", s.Name, s.Provider)
			}
			signable(t, s)
		}
		for _, f := range []string{"penstock.yaml", "credentials.json"} {
			if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%s holds secrets: %v %v", f, st, err)
			}
		}
		// What an archive would have left.
		if err := os.MkdirAll(filepath.Join(c.Archive.Dir, "segments"), 0o700); err != nil {
			t.Error(err)
		}
	})
	if len(first.Warnings) > 0 {
		t.Errorf("warnings: %q", first.Warnings)
	}
	// Another start keeps credentials, archive and broker.
	devRun(t, w, dir, func(c *config.Config) {
		for i := range c.Sources {
			for name, values := range c.Sources[i].Credentials {
				if values[0] != first.Sources[i].Credentials[name][0] {
					t.Errorf("%s of %s is another", name, c.Sources[i].Name)
				}
			}
		}
		if c.Admin.Tokens[0].Token != first.Admin.Tokens[0].Token {
			t.Error("the admin token is another")
		}
		if !hasFiles(c.Archive.Dir) {
			t.Error("the archive is gone")
		}
	})
	// With the broker's files gone the archive is set aside too, and said so.
	if err := os.RemoveAll(filepath.Join(dir, "kafka")); err != nil {
		t.Fatal(err)
	}
	devRun(t, w, dir, func(c *config.Config) {
		if hasFiles(c.Archive.Dir) {
			t.Error("an archive without its broker is kept")
		}
	})
	if !strings.Contains(w.err.String(), "both begin anew") {
		t.Errorf("nothing was said: %s", w.err.String())
	}
	if old, _ := filepath.Glob(filepath.Join(dir, "old-*", "archive", "segments")); len(old) != 1 {
		t.Errorf("the old archive is not kept beside: %v", old)
	}
}

func TestDevAddressTaken(t *testing.T) {
	w := newWorld(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	for _, flag := range []string{"--ingest", "--admin", "--kafka"} {
		w.want(exitFound, flag+": "+ln.Addr().String()+" cannot be listened on", "dev", "--dir", t.TempDir(),
			"--ingest", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--kafka", "127.0.0.1:0", flag, ln.Addr().String())
	}
	w.want(exitFound, "is no address", "dev", "--dir", t.TempDir(), "--ingest", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--kafka", "9092")
}

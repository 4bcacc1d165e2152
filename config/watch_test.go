package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestTruncatedReload cuts the file in force at every byte. A reload may refuse it, or
// take what is left when only whole sources are missing; it never panics, and never takes
// a source for what it is not (github without its allow_ips would be open to all).
func TestTruncatedReload(t *testing.T) {
	environment(t)
	whole := example(t)
	path := filepath.Join(t.TempDir(), "p.yaml")
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(whole)
	full, err := Load(path, providers())
	if err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for i := range whole {
		write(whole[:i])
		c, err := Reload(full, providers())
		if err != nil {
			var es *Errors
			if !errors.As(err, &es) {
				t.Fatalf("cut at %d: %v", i, err)
			}
			continue
		}
		accepted++
		if len(c.Sources) == len(full.Sources) || len(c.Warnings) == 0 {
			t.Fatalf("cut at %d: %d sources, warnings %q", i, len(c.Sources), c.Warnings)
		}
		for j, s := range c.Sources {
			if !equalSources(s, full.Sources[j]) {
				t.Errorf("cut at %d: source %s differs: %+v", i, s.Name, s)
			}
		}
		if d := Diff(full, c); d != nil {
			t.Errorf("cut at %d: %v differ", i, d)
		}
	}
	if accepted != 4 { // after each source but the last
		t.Errorf("%d cuts were accepted, want the 4 between sources", accepted)
	}
}

// watching runs Watch over a file and tells what came of it.
type watching struct {
	t       *testing.T
	path    string
	applied chan *Config
	failed  chan error
	hup     chan os.Signal
	asked   chan chan<- error
	mu      sync.Mutex
	restart []string
	refuse  error
}

func watch(t *testing.T, text string) *watching {
	w := &watching{t: t, path: filepath.Join(t.TempDir(), "p.yaml"), applied: make(chan *Config, 10), failed: make(chan error, 10), hup: make(chan os.Signal, 1), asked: make(chan chan<- error)}
	w.write(w.path, text)
	c, err := Load(w.path, providers())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, WatchOptions{Config: c, Catalogue: providers(), Every: 10 * time.Millisecond, Settle: 5 * time.Millisecond, Hup: w.hup, Asked: w.asked,
			Apply: func(next *Config, restart []string) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.restart = restart
				if w.refuse == nil {
					w.applied <- next
				}
				return w.refuse
			},
			Failed: func(err error) { w.failed <- err }})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *watching) write(path, text string) {
	w.t.Helper()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watching) next() *Config {
	w.t.Helper()
	select {
	case c := <-w.applied:
		return c
	case err := <-w.failed:
		w.t.Fatalf("refused: %v", err)
	case <-time.After(10 * time.Second):
		w.t.Fatal("no reload")
	}
	return nil
}

func (w *watching) failure() error {
	w.t.Helper()
	select {
	case <-w.applied:
		w.t.Fatal("it was applied")
	case err := <-w.failed:
		return err
	case <-time.After(10 * time.Second):
		w.t.Fatal("nothing was said")
	}
	return nil
}

func (w *watching) quiet(d time.Duration) {
	w.t.Helper()
	select {
	case <-w.applied:
		w.t.Fatal("it was applied again")
	case err := <-w.failed:
		w.t.Fatalf("refused: %v", err)
	case <-time.After(d):
	}
}

func TestWatchFile(t *testing.T) {
	w := watch(t, least)
	w.quiet(60 * time.Millisecond)
	w.write(w.path, least+"log: {level: debug}\n")
	if c := w.next(); c.Log.Level != "debug" {
		t.Errorf("level %s", c.Log.Level)
	}
	if w.mu.Lock(); !reflect.DeepEqual(w.restart, []string{"log.level"}) {
		t.Errorf("restart: %v", w.restart)
	}
	w.mu.Unlock()
	// A touch changes nothing; SIGHUP reloads whatever has changed.
	if err := os.Chtimes(w.path, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	w.quiet(80 * time.Millisecond)
	w.hup <- syscall.SIGHUP
	w.next()
	// A bad file is named once, and the old stays; a good one is taken again.
	w.write(w.path, "log: {level: debgu}\n")
	if err := w.failure(); err == nil || !strings.Contains(err.Error(), `did you mean "debug"?`) {
		t.Errorf("got %v", err)
	}
	w.quiet(80 * time.Millisecond)
	w.hup <- syscall.SIGHUP // who asks is told again
	if err := w.failure(); err == nil {
		t.Error("SIGHUP on a bad file was answered with nothing")
	}
	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	if err := w.failure(); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("got %v", err)
	}
	w.write(w.path, least+"log: {level: debug}\n")
	if err := w.failure(); err != nil {
		t.Errorf("the file agrees again, got %v", err)
	}
	w.write(w.path, "# without log\n"+least)
	w.next()
}

// TestWatchSettles: a file that is being written in place is read when it rests.
func TestWatchSettles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(path, []byte(least), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, providers())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	applied, done := make(chan *Config, 10), make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, WatchOptions{Config: c, Catalogue: providers(), Every: time.Millisecond, Settle: 300 * time.Millisecond,
			Apply:  func(next *Config, _ []string) error { applied <- next; return nil },
			Failed: func(err error) { t.Errorf("a half-written file was read: %v", err) }})
	}()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.SplitAfter(least+"log: {level: debug}\n", "\n") {
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case c := <-applied:
		if c.Log.Level != "debug" {
			t.Errorf("level %s", c.Log.Level)
		}
	case <-time.After(10 * time.Second):
		t.Error("no reload")
	}
	cancel()
	<-done
}

func TestWatchSecretFile(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := watch(t, strings.Replace(least, "0123456789abcdef", `"file:`+secret+`"`, 1))
	w.write(secret, "fedcba9876543210\n")
	if got := w.next().Sources[0].Credentials["secrets"][0].Reveal(); got != "fedcba9876543210" {
		t.Errorf("secret is %q", got)
	}
	w.write(secret, "short\n")
	if err := w.failure(); err == nil || !strings.Contains(err.Error(), "has 5 bytes") {
		t.Errorf("got %v", err)
	}
	w.write(secret, "fedcba9876543210\n")
	if err := w.failure(); err != nil {
		t.Errorf("agrees again: %v", err)
	}
	// A file that is not there yet is waited for, although the config itself rests.
	later := filepath.Join(dir, "later")
	w.write(w.path, strings.Replace(least, "0123456789abcdef", `"file:`+later+`"`, 1))
	if err := w.failure(); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("got %v", err)
	}
	w.write(later, "1111111111111111\n")
	select {
	case c := <-w.applied:
		if got := c.Sources[0].Credentials["secrets"][0].Reveal(); got != "1111111111111111" {
			t.Errorf("secret is %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the file that came was not seen")
	}
}

// TestWatchSymlink: a ConfigMap is a symlink that is swapped; the name never changes.
func TestWatchSymlink(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a.yaml": least, "b.yaml": least + "ingest: {path: '/b/{source}'}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := watch(t, least)
	swap := func(to string) {
		t.Helper()
		if err := os.Symlink(filepath.Join(dir, to), w.path+".link"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(w.path+".link", w.path); err != nil {
			t.Fatal(err)
		}
	}
	swap("a.yaml")
	w.quiet(60 * time.Millisecond)
	swap("b.yaml")
	if c := w.next(); c.Sources[0].Path != "/b/gh" {
		t.Errorf("path %s", c.Sources[0].Path)
	}
	if w.mu.Lock(); w.restart != nil {
		t.Errorf("restart: %v", w.restart)
	}
	w.mu.Unlock()
}

// TestWatchAsked: who asks and waits is told what came of it.
func TestWatchAsked(t *testing.T) {
	w := watch(t, least)
	ask := func() error {
		answer := make(chan error, 1)
		w.asked <- answer
		return <-answer
	}
	if err := ask(); err != nil {
		t.Errorf("a good file is answered %v", err)
	}
	w.next()
	w.write(w.path, "log: {level: debgu}\n")
	if err := ask(); err == nil || !strings.Contains(err.Error(), `p.yaml:1:14: log.level`) {
		t.Errorf("a bad file is answered %v", err)
	}
	if err := w.failure(); err == nil {
		t.Error("only the one who asked was told")
	}
}

func TestWatchApplyRefuses(t *testing.T) {
	w := watch(t, least)
	w.mu.Lock()
	w.refuse = errors.New("cannot compile source gh")
	w.mu.Unlock()
	w.write(w.path, least+"log: {level: warn}\n")
	if err := w.failure(); err == nil || err.Error() != "cannot compile source gh" {
		t.Errorf("got %v", err)
	}
	w.mu.Lock()
	w.refuse = nil
	w.mu.Unlock()
	select {
	case <-w.applied:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not tried again")
	}
}

func TestDiff(t *testing.T) {
	parse := func(text string) *Config {
		t.Helper()
		c, err := Parse("x.yaml", []byte(text), providers())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	base := parse(least)
	f := func(text string, want ...string) {
		t.Helper()
		if got := Diff(base, parse(text)); !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(least)
	f(strings.Replace(least, "0123456789abcdef", "fedcba9876543210", 1))
	f(least+"ingest: {listen: '127.0.0.1:1', path: '/x/{source}', public_url: 'https://h'}\n", "ingest.listen")
	f(strings.Replace(least, "./data", "./other", 1), "archive.dir")
	f(least+"forward: {kafka: {brokers: [\"b:1\"]}}\n", "forward")
	f(least+"dedupe: {window: 3d, redis: {addresses: [\"b:1\"]}}\n", "dedupe.redis")
	f(least + "admin: {tokens: [{name: a, token: 0123456789abcdef}]}\n")

	two := parse(least + "  - {name: st, provider: stripe, credentials: {secrets: [0123456789abcdef]}}\n")
	rotated := parse(strings.Replace(least, "0123456789abcdef", "fedcba9876543210", 1))
	g := func(a, b *Config, want [3][]string) {
		t.Helper()
		x, y, z := SourceChanges(a, b)
		if got := [3][]string{x, y, z}; !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	g(base, two, [3][]string{{"st"}, nil, nil})
	g(two, base, [3][]string{nil, {"st"}, nil})
	g(base, rotated, [3][]string{nil, nil, {"gh"}})
	if Digest(base) != Digest(rotated) || Digest(base) == Digest(two) || Digest(base) != Digest(parse(least)) {
		t.Error("a digest names what is said, without secrets")
	}
}

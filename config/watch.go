package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Reload reads the file of old again. Beyond Load it refuses what looks half written,
// since a file that lost its end is often still valid YAML that says something else
// (an allow_ips that is gone lets everybody in): no final newline where there was one,
// and the beginning of the old text unless all that is missing is whole sources.
func Reload(old *Config, cat Catalogue) (*Config, error) {
	text, err := readBounded(old.Path, maxConfig)
	if err != nil {
		return nil, &Errors{
			List:  []Error{{File: old.Path, Message: describe(old.Path, err).Error(), Cure: "the configuration in force stays"}},
			Files: []string{old.Path},
		}
	}
	was := old.text()
	half := func(what string) error {
		return &Errors{List: []Error{{File: old.Path, Message: what + ": it looks half written",
			Cure: "the configuration in force stays; write the file in full, and if it is meant so, begin it with a comment line"}}, Files: []string{old.Path}}
	}
	if bytes.HasSuffix(was, []byte("\n")) && len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		return nil, half("has lost its final newline")
	}
	c, err := Parse(old.Path, text, cat)
	if err != nil {
		return nil, err
	}
	if file := halfTenants(old, c); file != "" {
		return nil, &Errors{List: []Error{{File: file, Message: "is only the beginning of what it was: it looks half written",
			Cure: "the configuration in force stays; write the file in full, and if it is meant so, begin it with a comment line"}}, Files: c.Files}
	}
	if len(text) < len(was) && bytes.HasPrefix(was, text) {
		added, removed, changed := SourceChanges(old, c)
		if len(added)+len(changed) > 0 || !sameBesideSources(old, c) {
			return nil, half("is only the beginning of what it was")
		}
		if len(removed) > 0 {
			c.Warnings = append(c.Warnings, fmt.Sprintf("%s: is the beginning of what it was; removed sources: %s", old.Path, strings.Join(removed, ", ")))
		}
	}
	return c, nil
}

// sameBesideSources compares what two configurations say but for their sources.
func sameBesideSources(a, b *Config) bool {
	x, y := *a, *b
	x.Sources, y.Sources = nil, nil
	return Digest(&x) == Digest(&y)
}

// WatchOptions is what Watch needs.
type WatchOptions struct {
	Config    *Config          // in force when Watch begins
	Catalogue Catalogue        //
	Every     time.Duration    // between two looks at the files; 0 = 10 s
	Settle    time.Duration    // how long a changed file must rest before it is read; 0 = 500 ms
	Hup       <-chan os.Signal // reload now; nil = never

	// Asked is SIGHUP for somebody who waits for the answer: each gets what came of it,
	// nil where the file is in force. It must have room for it; nil = never.
	Asked <-chan chan<- error

	// Apply gets every new configuration, and the keys among its changes since the start
	// that want a restart. An error is reported by Failed; the old one stays in force.
	Apply func(next *Config, restart []string) error
	// Failed gets the reason why a changed file is not in force, once as long as it is
	// the same (and whenever SIGHUP asked), and nil when file and force agree again.
	Failed func(err error)
}

// Watch reloads on SIGHUP and when the file, or a secret or certificate that it names,
// has changed, until ctx ends. It looks by stat: watches on files die silently when a
// mounted ConfigMap swaps its symlink.
func Watch(ctx context.Context, o WatchOptions) {
	if o.Every <= 0 {
		o.Every = 10 * time.Second
	}
	if o.Settle <= 0 {
		o.Settle = 500 * time.Millisecond
	}
	w := &watcher{WatchOptions: o, start: o.Config, files: o.Config.Files}
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-o.Hup:
			if !ok {
				w.Hup, o.Hup = nil, nil
				continue
			}
			w.look()
			_ = w.reload(true) // Failed was told
		case answer := <-o.Asked:
			w.look()
			answer <- w.reload(true)
		case <-tick.C:
			if w.look() || w.failing {
				if w.settle(ctx) {
					_ = w.reload(false) // Failed was told
				}
			}
		}
	}
}

type watcher struct {
	WatchOptions
	start   *Config // what the restart keys are compared with
	files   []string
	stamps  []stamp // of files, as they were when last read
	failing bool
	said    string
}

// stamp is what stat tells of a file. The zero one is that of a missing file.
type stamp struct {
	info os.FileInfo
}

func (a stamp) equal(b stamp) bool {
	if a.info == nil || b.info == nil {
		return a.info == nil && b.info == nil
	}
	return os.SameFile(a.info, b.info) && a.info.Size() == b.info.Size() && a.info.ModTime().Equal(b.info.ModTime())
}

// look says whether a file has changed since the last look. The first look says yes, so
// that what changed between Load and Watch is seen.
func (w *watcher) look() bool {
	now := make([]stamp, len(w.files))
	for i, f := range w.files {
		now[i].info, _ = os.Stat(f)
	}
	same := slices.EqualFunc(w.stamps, now, stamp.equal)
	w.stamps = now
	return !same
}

// settle waits until the files rest, so that one that is being written is not read. It
// gives up (until the next tick) on files that never rest.
func (w *watcher) settle(ctx context.Context) bool {
	for range 20 {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(w.Settle):
		}
		if !w.look() {
			return true
		}
	}
	w.stamps = nil
	return false
}

func (w *watcher) reload(asked bool) error {
	next, err := Reload(w.Config, w.Catalogue)
	if err == nil {
		w.follow(next.Files)
		if !asked && next.sum() == w.Config.sum() {
			w.agree()
			return nil
		}
		err = w.Apply(next, Diff(w.start, next))
	}
	if err != nil {
		var es *Errors
		if errors.As(err, &es) {
			w.follow(es.Files)
		}
		w.failing = true
		if msg := err.Error(); asked || msg != w.said {
			w.said = msg
			w.Failed(err)
		}
		return err
	}
	w.Config = next
	w.agree()
	return nil
}

func (w *watcher) agree() {
	if w.failing {
		w.failing, w.said = false, ""
		w.Failed(nil)
	}
}

// follow watches the files of the configuration in force and of the one just tried.
func (w *watcher) follow(files []string) {
	all := append(slices.Clone(w.Config.Files), files...)
	slices.Sort(all)
	all = slices.Compact(all)
	if !slices.Equal(all, w.files) {
		w.files = all
		w.look()
	}
}

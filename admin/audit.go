package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Act is one entry of the audit log: who did what, from where, and what came of it.
type Act struct {
	Seq     uint64    `json:"seq"`
	At      time.Time `json:"at"`
	Action  string    `json:"action"`
	Subject string    `json:"subject,omitempty"` // a delivery, a job, a source, a merchant
	Detail  string    `json:"detail,omitempty"`
	Who     string    `json:"who,omitempty"`
	Role    string    `json:"role,omitempty"`
	From    string    `json:"from,omitempty"`
	Result  string    `json:"result"`
	Status  int       `json:"status,omitempty"` // of the answer
	Begun   uint64    `json:"begun,omitempty"`  // entry that announced it
	Missed  uint64    `json:"missed,omitempty"` // refused attempts that were not recorded before this one
}

// Results of an act. Begun is written before the act and hidden by what came of it: who
// still sees it looks at a process that was killed in between.
const (
	actBegun   = "begun"
	actDone    = "done"
	actRefused = "refused"
	actFailed  = "failed"
)

const (
	// auditFiles is into how many files each log is cut; the oldest goes.
	auditFiles = 8
	// lookSync is how old a look may be that a power failure takes; a kill takes none.
	lookSync = time.Second
	// Refused attempts cost whoever makes them nothing, and must not push out what was
	// done: beyond a burst one a minute is recorded, and the rest counted.
	noiseBurst    = 60
	noiseInterval = time.Minute
	maxActText    = 2 << 10
)

// Audit is the audit log: files of one JSON object a line, only ever appended to, bounded
// in size. What was done and what was looked at have files of their own, so that a program
// that reads bodies all day does not push out who released what. It is safe for
// concurrent use.
type Audit struct {
	mu         sync.Mutex // guards all
	acts       auditLog
	looks      auditLog
	seq        uint64
	unfinished map[uint64]bool // begun by a process that did not end them
	running    map[uint64]bool // begun by this one
	noise      *rate.Limiter
	missed     uint64
	lookedAt   time.Time
	closed     bool
}

// auditLog is one sequence of files; the last is written to. Its Audit's mutex guards it.
type auditLog struct {
	dir, prefix string
	bytes       int64 // of all files
	files       []auditFile
	f           *os.File // nil: to be opened (again)
	sync        func(*os.File) error
}

type auditFile struct {
	path string
	size int64
}

// OpenAudit opens the log of a directory and makes it where it is not. Size is what its
// files take together.
func OpenAudit(dir string, size int64) (*Audit, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	a := &Audit{unfinished: map[uint64]bool{}, running: map[uint64]bool{}, noise: rate.NewLimiter(rate.Every(noiseInterval), noiseBurst),
		acts: auditLog{dir: dir, prefix: "acts-", bytes: size / 2, sync: (*os.File).Sync}, looks: auditLog{dir: dir, prefix: "looks-", bytes: size / 2, sync: (*os.File).Sync}}
	for _, l := range []*auditLog{&a.acts, &a.looks} {
		if err := l.load(); err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
	}
	for e := range a.acts.backwards(a.acts.files) {
		a.seq = max(a.seq, e.Seq)
		if e.Begun > 0 {
			a.running[e.Begun] = true // ended, for as long as this looks
		} else if e.Result == actBegun && !a.running[e.Seq] {
			a.unfinished[e.Seq] = true
		}
	}
	clear(a.running)
	for e := range a.looks.backwards(a.looks.files) {
		a.seq = max(a.seq, e.Seq)
		break // the last is the highest
	}
	return a, nil
}

// append writes one entry and gives its number. What returns without an error is on
// stable storage; of looks, within a second.
func (a *Audit) append(e Act, look bool) (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return 0, errors.New("audit log: closed")
	}
	if e.Result == actRefused && e.Begun == 0 && !a.noise.AllowN(e.At, 1) {
		a.missed++
		return 0, nil
	}
	e.Seq, e.Missed = a.seq+1, a.missed
	e.Action, e.Subject, e.Detail, e.Who = short(e.Action), short(e.Subject), short(e.Detail), short(e.Who)
	line, err := json.Marshal(e)
	if err != nil {
		return 0, fmt.Errorf("audit log: %w", err)
	}
	l, sync := &a.acts, true
	if look {
		l, sync = &a.looks, e.At.Sub(a.lookedAt) >= lookSync || e.At.Before(a.lookedAt)
	}
	a.seq++ // even where it fails: half of it may be there
	if err := l.write(append(line, '\n'), e.Seq, sync); err != nil {
		return 0, fmt.Errorf("audit log: %w", err)
	}
	a.missed = 0
	if look && sync {
		a.lookedAt = e.At
	}
	if e.Result == actBegun {
		a.running[e.Seq] = true
	}
	delete(a.running, e.Begun)
	return e.Seq, nil
}

// short keeps what strangers choose from filling the log.
func short(s string) string {
	if len(s) > maxActText {
		s = strings.ToValidUTF8(s[:maxActText], "") + "..."
	}
	return s
}

// Close lets go of the files.
func (a *Audit) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	return errors.Join(a.acts.close(), a.looks.close())
}

// auditFilter is what a list looks for; zero values match all.
type auditFilter struct {
	action, who, subject string
	kind                 string // acts, looks or both with ""
	from, to             time.Time
	before               uint64 // entries older than this one
	limit                int
}

func (f *auditFilter) matches(e *Act) bool {
	if f.kind != "" && looks[e.Action] != (f.kind == kindLooks) {
		return false
	}
	return (f.before == 0 || e.Seq < f.before) && (f.action == "" || f.action == e.Action) && (f.who == "" || f.who == e.Who) &&
		(f.subject == "" || f.subject == e.Subject) && (f.from.IsZero() || !e.At.Before(f.from)) && (f.to.IsZero() || e.At.Before(f.to))
}

// list gives entries, newest first, and whether there are more.
func (a *Audit) list(ctx context.Context, f auditFilter) (out []Act, more bool, err error) {
	a.mu.Lock()
	actFiles, lookFiles := slices.Clone(a.acts.files), slices.Clone(a.looks.files)
	a.mu.Unlock()
	for e := range merge(a.acts.backwards(actFiles), a.looks.backwards(lookFiles)) {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		if !f.matches(&e) || e.Result == actBegun && !a.open(e.Seq) {
			continue
		}
		if len(out) == f.limit {
			return out, true, nil
		}
		out = append(out, e)
	}
	return out, false, nil
}

// open reports whether nothing came of an act yet.
func (a *Audit) open(seq uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unfinished[seq] || a.running[seq]
}

// merge puts two sequences of falling numbers into one.
func merge(one, two iter.Seq[Act]) iter.Seq[Act] {
	return func(yield func(Act) bool) {
		nextA, stopA := iter.Pull(one)
		defer stopA()
		nextB, stopB := iter.Pull(two)
		defer stopB()
		a, okA := nextA()
		b, okB := nextB()
		for okA || okB {
			if okA && (!okB || a.Seq > b.Seq) {
				if !yield(a) {
					return
				}
				a, okA = nextA()
				continue
			}
			if !yield(b) {
				return
			}
			b, okB = nextB()
		}
	}
}

// load finds the files of a log, oldest first.
func (l *auditLog) load() error {
	names, err := filepath.Glob(filepath.Join(l.dir, l.prefix+"*.ndjson"))
	if err != nil {
		return err
	}
	slices.Sort(names) // numbers have leading zeros
	for _, n := range names {
		info, err := os.Stat(n)
		if err != nil {
			return err
		}
		l.files = append(l.files, auditFile{n, info.Size()})
	}
	return nil
}

// backwards gives the entries of files, newest first. A line that cannot be read (a
// damaged sector) is passed over: the rest is worth as much.
func (l *auditLog) backwards(files []auditFile) iter.Seq[Act] {
	return func(yield func(Act) bool) {
		for i := len(files) - 1; i >= 0; i-- {
			b, err := os.ReadFile(files[i].path)
			if err != nil {
				continue // it was the oldest, and went meanwhile
			}
			b = b[:min(int64(len(b)), files[i].size)]
			for len(b) > 0 {
				b = bytes.TrimSuffix(b, []byte{'\n'})
				at := bytes.LastIndexByte(b, '\n') + 1
				var e Act
				if json.Unmarshal(b[at:], &e) == nil && e.Seq > 0 && !yield(e) {
					return
				}
				b = b[:at]
			}
		}
	}
}

// write appends a line to the last file, or to a new one where that is full.
func (l *auditLog) write(line []byte, seq uint64, sync bool) error {
	if n := len(l.files); n == 0 || l.files[n-1].size+int64(len(line)) > l.bytes/auditFiles && l.files[n-1].size > 0 {
		if err := l.next(seq); err != nil {
			return err
		}
	}
	last := &l.files[len(l.files)-1]
	if l.f == nil {
		if err := l.reopen(last); err != nil {
			return err
		}
	}
	_, err := l.f.Write(line)
	if err == nil && sync {
		err = l.sync(l.f)
	}
	if err != nil {
		// What is there of it is cut off when the file is opened again.
		_ = l.f.Close()
		l.f = nil
		return err
	}
	last.size += int64(len(line))
	return nil
}

// next begins a file and lets the oldest go.
func (l *auditLog) next(seq uint64) error {
	if err := l.close(); err != nil {
		return err
	}
	path := filepath.Join(l.dir, fmt.Sprintf("%s%020d.ndjson", l.prefix, seq))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := syncDir(l.dir); err != nil {
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	l.f, l.files = f, append(l.files, auditFile{path: path})
	for len(l.files) > auditFiles {
		if err := os.Remove(l.files[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		l.files = l.files[1:]
	}
	return nil
}

// reopen opens the last file behind its last whole line: what a crash or a full disk cut
// off was never promised.
func (l *auditLog) reopen(last *auditFile) error {
	b, err := os.ReadFile(last.path)
	if err != nil {
		return err
	}
	whole := int64(bytes.LastIndexByte(b, '\n') + 1)
	f, err := os.OpenFile(last.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if whole < int64(len(b)) {
		if err := f.Truncate(whole); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	l.f, last.size = f, whole
	return nil
}

func (l *auditLog) close() error {
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return errors.Join(f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"sort"
	"strings"
	"sync"

	"go.uber.org/zap"
)

// State is a small set of keys and values that survives whatever the log survives:
// cursors, intents, and the archive's own notes. Each Commit is one frame of the file
// `cursors` (a segment with log number 2), so it is there whole or not at all. The
// payload of a frame: uvarint n, then n times str key, 1 byte (1 set, 0 delete), str
// value. A new file replaces the old one (write, sync, rename, sync of the directory)
// when that has grown, when it was opened, and after any failed write.
type State struct {
	fs      FS
	dir     string
	archive uint64
	log     *zap.Logger

	mu     sync.RWMutex // protects values, cur and closed
	values map[string][]byte
	live   int // bytes of keys and values
	cur    *stateBatch
	closed bool

	writing sync.Mutex // held by the leader of a batch while it writes; before mu
	file    File       // nil: the next commit writes a new file
	tag     tag
	off     int64
	size    int64 // of the file, zeros ahead included
	seq     uint64
}

// Change sets or deletes a key.
type Change struct {
	Key   string
	Value []byte // nil deletes
}

// stateBatch is the commits that one sync makes durable.
type stateBatch struct {
	commits [][]Change
	done    chan struct{}
	err     error
}

const (
	stateName    = "cursors"
	stateNewName = "cursors.new"
	stateZeros   = 64 << 10
	// stateCompact is the file size from which it is worth writing anew, if at least
	// three quarters of it are old values.
	stateCompact = 1 << 20
)

// Get gives the value of a key. It must not be changed.
func (s *State) Get(key string) ([]byte, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.values[key]
	return v, ok
}

// Range calls f for each key that begins with prefix, in order, until it returns
// false. Values must not be changed.
func (s *State) Range(prefix string, f func(key string, value []byte) bool) {
	s.mu.RLock()
	found := make(map[string][]byte)
	for k, v := range s.values {
		if strings.HasPrefix(k, prefix) {
			found[k] = v
		}
	}
	s.mu.RUnlock()
	keys := make([]string, 0, len(found))
	for k := range found {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if !f(k, found[k]) {
			return
		}
	}
}

// Commit makes changes durable, all or none, in order with other commits. It returns
// after a sync that covers them; commits that wait at the same time share one. After an
// error (ErrUnavailable) they may or may not be there after a crash, and are not seen
// before.
func (s *State) Commit(changes ...Change) error {
	if len(changes) == 0 {
		return nil
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	b := s.cur
	leader := b == nil
	if leader {
		b = &stateBatch{done: make(chan struct{})}
		s.cur = b
	}
	b.commits = append(b.commits, changes)
	s.mu.Unlock()
	if !leader {
		<-b.done
		return b.err
	}
	s.writing.Lock() // while the last batch is written, others join ours
	s.mu.Lock()
	s.cur = nil
	s.mu.Unlock()
	if err := s.write(b.commits); err != nil {
		b.err = fmt.Errorf("commit to %s: %w: %w", stateName, ErrUnavailable, err)
	}
	s.writing.Unlock()
	close(b.done)
	return b.err
}

// write makes commits durable and then visible. Caller holds writing.
func (s *State) write(commits [][]Change) error {
	if s.file == nil || s.off > stateCompact && s.off > int64(4*s.live) {
		return s.rewrite(commits)
	}
	var buf []byte
	seq := s.seq
	for _, c := range commits {
		seq++
		start := len(buf)
		buf = putChanges(beginFrame(buf), c)
		endFrame(buf[start:], 0, s.tag, seq, s.off, typeState)
	}
	if err := s.append(buf); err != nil {
		s.giveUp()
		return err
	}
	s.off += int64(len(buf))
	s.seq = seq
	s.apply(commits)
	return nil
}

func (s *State) append(buf []byte) error {
	if _, err := s.file.WriteAt(buf, s.off); err != nil {
		return err
	}
	end := s.off + int64(len(buf))
	grew := end > s.size
	if grew {
		s.size = end
		if _, err := s.file.WriteAt(make([]byte, stateZeros), end); err == nil {
			s.size += stateZeros
		}
	}
	return syncGrown(s.file, grew)
}

// giveUp leaves the file for good: what a failed sync did to it nobody knows.
func (s *State) giveUp() {
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
}

func (s *State) apply(commits [][]Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live += applyChanges(s.values, commits)
}

// applyChanges gives the change of size.
func applyChanges(values map[string][]byte, commits [][]Change) (grown int) {
	for _, commit := range commits {
		for _, c := range commit {
			if old, ok := values[c.Key]; ok {
				grown -= len(c.Key) + len(old)
				delete(values, c.Key)
			}
			if c.Value != nil {
				values[c.Key] = append(make([]byte, 0, len(c.Value)), c.Value...)
				grown += len(c.Key) + len(c.Value)
			}
		}
	}
	return grown
}

func putChanges(b []byte, changes []Change) []byte {
	b = binary.AppendUvarint(b, uint64(len(changes)))
	for _, c := range changes {
		b = putStr(b, c.Key)
		if c.Value == nil {
			b = append(b, 0)
		} else {
			b = append(b, 1)
		}
		b = putStr(b, c.Value)
	}
	return b
}

func readChanges(payload []byte) ([]Change, error) {
	p := payloadReader{b: payload}
	n := p.uvarint()
	var changes []Change
	for ; n > 0 && !p.bad; n-- {
		c := Change{Key: p.str()}
		set := p.byte() == 1
		v := p.raw()
		if set {
			c.Value = append([]byte{}, v...)
		}
		changes = append(changes, c)
	}
	if p.bad {
		return nil, errPayload
	}
	return changes, nil
}

// rewrite replaces the file by one that holds the values of now and the commits.
// Caller holds writing.
func (s *State) rewrite(commits [][]Change) error {
	s.mu.RLock()
	values := maps.Clone(s.values)
	s.mu.RUnlock()
	applyChanges(values, commits)
	s.giveUp()
	t := tag{number: s.tag.number + 1, salt: rand.Uint64()}
	f, off, err := s.writeFile(t, values)
	if err != nil {
		return err
	}
	s.file, s.tag, s.off, s.size, s.seq = f, t, off, off, s.seq+1
	s.apply(commits)
	return nil
}

// writeFile writes values to a new file and puts that in the place of the old one.
func (s *State) writeFile(t tag, values map[string][]byte) (File, int64, error) {
	all := make([]Change, 0, len(values))
	for k, v := range values {
		all = append(all, Change{Key: k, Value: v})
	}
	sort.Slice(all, func(a, b int) bool { return all[a].Key < all[b].Key })
	h := segmentHeader{log: logCursors, tag: t, archive: s.archive, first: 1}
	buf := putChanges(beginFrame(h.block()), all)
	endFrame(buf[segmentHead:], 0, t, s.seq+1, segmentHead, typeState)
	if len(buf) > maxPayload {
		return nil, 0, fmt.Errorf("%d bytes of state are more than one file can hold", len(buf))
	}
	tmp := s.dir + "/" + stateNewName
	// A half of an earlier attempt; where it cannot be removed Create says so.
	_ = s.fs.Remove(tmp)
	f, err := s.fs.Create(tmp)
	if err != nil {
		return nil, 0, err
	}
	if err := s.install(f, buf); err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, int64(len(buf)), nil
}

func (s *State) install(f File, buf []byte) error {
	if _, err := f.WriteAt(buf, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := s.fs.Rename(s.dir+"/"+stateNewName, s.dir+"/"+stateName); err != nil {
		return err
	}
	return s.fs.SyncDir(s.dir)
}

func (s *State) close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	// Nothing can be told from a torn write behind the last commit, so that one is empty: a
	// bit that flips in any other is damage.
	buf := putChanges(beginFrame(nil), nil)
	endFrame(buf, 0, s.tag, s.seq+1, s.off, typeState)
	if err := s.append(buf); err != nil {
		s.log.Warn("cursors are closed without their last mark", zap.Error(err))
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// loadState reads the file. Damage is reported and costs the commits it hit; only a
// file that cannot be read at all, or of another version, is an error.
func loadState(fs FS, dir string, log *zap.Logger) (*State, []finding, error) {
	s := &State{fs: fs, dir: dir, log: log, values: make(map[string][]byte)}
	_, look := fs.(lookFS)
	r := &recovery{fs: fs, dir: dir, kind: logCursors, log: log, look: look}
	names, err := fs.List(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", dir, err)
	}
	// A short moment of the first start has no file; later its absence is noticed by what
	// it holds.
	if i := sort.SearchStrings(names, stateName); i == len(names) || names[i] != stateName {
		return s, nil, nil
	}
	seg, err := r.readSegment(stateName, 1)
	if errors.Is(err, ErrNewer) {
		return nil, nil, fmt.Errorf("%s: %w", r.path(stateName), err)
	}
	if err != nil {
		r.damage(stateName, "cannot be read (%v): positions are lost, so deliveries are looked at again; the file is kept as %s.damaged", err, stateName)
		if err := fs.Rename(r.path(stateName), r.path(stateName)+".damaged"); err != nil && !look {
			r.note(stateName, "cannot be kept: %v", err)
		}
		return s, r.findings, nil
	}
	s.archive, s.tag = seg.head.archive, seg.head.tag
	f, err := seg.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer seg.release()
	s.scan(r, seg, f)
	return s, r.findings, nil
}

// scan applies the commits of the file. Each was written after the one before it was
// synced, so a bad one before a good one is damage, and one behind the last was torn.
func (s *State) scan(r *recovery, seg *segment, f File) {
	sc := &scanner{src: f, tag: seg.head.tag, off: segmentHead, end: seg.size.Load(), salvage: true}
	var bad []region
	for {
		it, err := sc.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				r.damage(stateName, "cannot be read to its end: %v", err)
			}
			break
		}
		if !it.isFrame() {
			bad = append(bad, it.region)
			continue
		}
		for _, b := range bad {
			if b.off < it.frame.base {
				r.damage(stateName, "%d bytes at offset %d are damaged (%s): those positions are older now", b.size, b.off, b.why)
			} else {
				r.keepTorn(seg, b)
			}
		}
		bad = nil
		changes, err := readChanges(it.frame.payload)
		if err != nil || it.frame.typ != typeState {
			r.damage(stateName, "a commit at offset %d: %v", it.frame.off, errPayload)
			continue
		}
		s.seq = max(s.seq, it.frame.seq)
		s.live += applyChanges(s.values, [][]Change{changes})
	}
	for _, b := range bad {
		r.keepTorn(seg, b)
	}
}

package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"penstock/keep"
)

// file is a kept document as it stands on disk. What a POST carried is not in it.
type file struct {
	URL       string    `json:"url"`
	Key       string    `json:"key"`
	Fetched   time.Time `json:"fetched"`
	RefreshAt time.Time `json:"refresh_at"`
	Document  []byte    `json:"document"`
}

const suffix = ".json"

func (f *Fetcher) dir() keep.Dir { return keep.Dir(f.o.Dir) }

// load reads what was kept. A file that cannot be read is passed over: it is fetched again.
func (f *Fetcher) load() error {
	if f.o.Dir == "" {
		return nil
	}
	names, err := f.dir().Names(suffix)
	if err = errors.Join(err, f.dir().Sweep()); err != nil {
		return fmt.Errorf("keep published keys: %w", err)
	}
	now := f.o.Now()
	for _, name := range names[:min(len(names), maxKept)] {
		key := strings.TrimSuffix(name, suffix)
		kept, err := f.readFile(key)
		if err != nil {
			f.log.Warn("a kept key document cannot be read; it will be fetched again", zap.String("file", name), zap.Error(err))
			continue
		}
		if now.Sub(kept.Fetched) > maxStale || kept.Fetched.After(now.Add(time.Hour)) {
			f.unlink(key)
			continue
		}
		f.entries[key] = &entry{question: question{key: key, url: kept.URL}, doc: kept.Document, fetched: kept.Fetched, refreshAt: kept.RefreshAt, used: kept.Fetched}
	}
	return nil
}

func (f *Fetcher) readFile(key string) (*file, error) {
	text, err := f.dir().Read(key + suffix)
	if err != nil {
		return nil, err
	}
	var kept file
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, err
	}
	if kept.Key != key || len(kept.Document) == 0 {
		return nil, errors.New("it is not what its name says")
	}
	if f.o.Check != nil {
		if err := f.o.Check(kept.Document); err != nil {
			return nil, err
		}
	}
	return &kept, nil
}

// save writes the document so that after a crash either the old or the new one is whole.
func (f *Fetcher) save(e *entry) error {
	if f.o.Dir == "" {
		return nil
	}
	text, err := json.Marshal(file{URL: e.url, Key: e.key, Fetched: e.fetched, RefreshAt: e.refreshAt, Document: e.doc})
	if err != nil {
		return err
	}
	return f.dir().Write(e.key+suffix, text)
}

// unlink forgets a document on disk.
func (f *Fetcher) unlink(key string) {
	if f.o.Dir == "" {
		return
	}
	if err := f.dir().Remove(key + suffix); err != nil {
		f.log.Warn("a kept key document cannot be removed", zap.Error(err))
	}
}

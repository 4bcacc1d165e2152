package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
)

// file is a kept document as it stands on disk. What a POST carried is not in it.
type file struct {
	URL       string    `json:"url"`
	Key       string    `json:"key"`
	Fetched   time.Time `json:"fetched"`
	RefreshAt time.Time `json:"refresh_at"`
	Document  []byte    `json:"document"`
}

func (f *Fetcher) path(key string) string { return filepath.Join(f.o.Dir, key+".json") }

// load reads what was kept. A file that cannot be read is passed over: it is fetched again.
func (f *Fetcher) load() error {
	if f.o.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(f.o.Dir, 0o700); err != nil {
		return fmt.Errorf("keep published keys: %w", err)
	}
	names, err := os.ReadDir(f.o.Dir)
	if err != nil {
		return fmt.Errorf("keep published keys: %w", err)
	}
	now := f.o.Now()
	for _, n := range names {
		key, ok := strings.CutSuffix(n.Name(), ".json")
		if !ok || len(f.entries) >= maxKept {
			if strings.HasSuffix(n.Name(), ".tmp") {
				_ = os.Remove(filepath.Join(f.o.Dir, n.Name())) // left by a stop in the middle of a write
			}
			continue
		}
		kept, err := f.readFile(key)
		if err != nil {
			f.log.Warn("a kept key document cannot be read; it will be fetched again", zap.String("file", n.Name()), zap.Error(err))
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
	text, err := os.ReadFile(f.path(key))
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
	tmp, err := os.CreateTemp(f.o.Dir, e.key+"-*.tmp")
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), f.path(e.key))
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncDir(f.o.Dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// unlink forgets a document on disk.
func (f *Fetcher) unlink(key string) {
	if f.o.Dir == "" {
		return
	}
	if err := os.Remove(f.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("a kept key document cannot be removed", zap.Error(err))
	}
}

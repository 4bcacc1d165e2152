package archive

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestIndexOfAnOlderFormat: an upgrade says in plain words that the index is built anew,
// whether the older one had another number or Pebble's own merger.
func TestIndexOfAnOlderFormat(t *testing.T) {
	for name, o := range map[string]*pebble.Options{"number": {Merger: indexMerger}, "merger": {}} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewMem()
			o.FS = disk
			db, err := pebble.Open("index", o)
			if err == nil {
				err = db.Set(metaKey("format"), uintValue(2), pebble.Sync)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			core, logs := observer.New(zap.WarnLevel)
			testIndex(t, "index", indexOptions{fs: disk, Logger: zap.New(core)})
			all := logs.All()
			if len(all) != 1 || all[0].Message != "index of an older format: built anew from the log" || len(all[0].Context) != 1 {
				t.Fatalf("logged: %+v", all)
			}
		})
	}
}

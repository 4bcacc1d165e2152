package verify

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"penstock/provider"
)

var loadOnce = sync.OnceValues(provider.Builtin)

func builtin(t testing.TB) *provider.Catalogue {
	t.Helper()
	cat, err := loadOnce()
	if err != nil {
		t.Fatal(err)
	}
	return cat
}

// TestVectors runs every vector at hand: ours, the shared ones where they are beside the
// project, and those of the directories in PENSTOCK_VECTORS.
func TestVectors(t *testing.T) {
	paths := []string{"testdata/vectors"}
	if shared := filepath.Join("..", "..", "shared", "vectors"); exists(shared) {
		paths = append(paths, shared)
	}
	for _, p := range filepath.SplitList(os.Getenv("PENSTOCK_VECTORS")) {
		if p != "" {
			paths = append(paths, p)
		}
	}
	res, err := RunVectors(paths, builtin(t), os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	if res.Failed > 0 {
		t.Errorf("%d of %d vectors failed", res.Failed, res.Failed+res.Passed)
	}
	if res.Passed < 100 || res.Providers < 12 {
		t.Errorf("only %d vectors of %d providers were run", res.Passed, res.Providers)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

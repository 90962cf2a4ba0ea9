//go:build embedfilter

package module

import (
	"os"
	"path/filepath"
	"testing"
)

func TestEnsureUnpacks(t *testing.T) {
	t.Setenv("PATH", "")
	dir := filepath.Join(t.TempDir(), "new")
	path, err := Ensure(t.Context(), dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	isFilter(t, path)

	// A damaged one is replaced, a good one left alone.
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := Ensure(t.Context(), dir, quiet); err != nil || again != path {
		t.Fatalf("second time: %q, %v", again, err)
	}
	isFilter(t, path)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), dir, quiet); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); !after.ModTime().Equal(before.ModTime()) {
		t.Error("unpacked again")
	}
}

package module

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// isFilter fails unless path is a Wasm module that exports what Envoy looks for.
func isFilter(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(raw, []byte("\x00asm\x01\x00\x00\x00")) {
		t.Errorf("%s is not a Wasm module", path)
	}
	for _, export := range []string{"proxy_abi_version_0_2_0", "proxy_on_memory_allocate", "proxy_on_request_headers", "_initialize"} {
		if !bytes.Contains(raw, []byte(export)) {
			t.Errorf("%s does not export %s", path, export)
		}
	}
}

func TestPutIsWholeOrNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	boom := errors.New("boom")
	if err := put(path, func(tmp string) error {
		_ = os.WriteFile(tmp, []byte("half"), 0o600)
		return boom
	}); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
	if err := put(path, func(tmp string) error { return os.WriteFile(tmp, []byte("whole"), 0o600) }); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "whole" {
		t.Errorf("content %q", got)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestSweepKeepsWhatIsFresh(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{
		"filter-current.wasm": 48 * time.Hour, "filter-fresh.wasm": time.Hour, "filter-old.wasm": 25 * time.Hour, "other.wasm": 48 * time.Hour,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweep(dir, filepath.Join(dir, "filter-current.wasm"), now); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"filter-current.wasm": true, "filter-fresh.wasm": true, "filter-old.wasm": false, "other.wasm": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) == want {
			t.Errorf("%s: kept %v, want %v", name, !want, want)
		}
	}
}

// Package module provides the edge filter as a .wasm file for Envoy to load.
//
// A .wasm is never committed. A released binary carries it (build tag embedfilter,
// embed.go); in a checkout it is built at first use by the Go toolchain that built
// the caller (build.go), and again whenever a source of it has changed: its name
// holds a hash of them. Both variants have the one function [Ensure].
//
// Callers: the supervisor, the control plane, the edge, its tests. The alternative, a
// task that must run before `go run .`, is a step that everyone forgets once.
package module

import (
	"encoding/hex"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"time"
)

// name is the file name of a module with the given hash: a running Envoy keeps the
// file that it was told of.
func name(h hash.Hash) string {
	return "filter-" + hex.EncodeToString(h.Sum(nil))[:16] + ".wasm"
}

// put makes path appear with its whole content, filled by write, or not at all.
func put(path string, write func(tmp string) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".filter-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // no longer there after the rename
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := write(tmp.Name()); err != nil {
		return err
	}
	if err := os.Chmod(tmp.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// keepFor is how long modules of other sources stay: someone may be starting them.
const keepFor = 24 * time.Hour

// sweep removes modules of other sources that have not been used for long.
func sweep(dir, current string, now time.Time) error {
	old, err := filepath.Glob(filepath.Join(dir, "filter-*.wasm"))
	if err != nil {
		return err
	}
	for _, path := range old {
		info, err := os.Stat(path)
		if err != nil || path == current || now.Sub(info.ModTime()) < keepFor {
			continue
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove old filter: %w", err)
		}
	}
	return nil
}

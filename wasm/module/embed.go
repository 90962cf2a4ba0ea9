//go:build embedfilter

package module

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// filter is written by `go tool task build` before the binary is compiled.
//
//go:embed filter.wasm
var filter []byte

func sum(b []byte) hash.Hash {
	h := sha256.New()
	h.Write(b)
	return h
}

// Ensure returns the path of the filter in dir, which is created where it is not
// there. This variant unpacks the module that the binary carries.
func Ensure(_ context.Context, dir string, log *slog.Logger) (path string, err error) {
	want := sum(filter)
	path = filepath.Join(dir, name(want))
	if have, err := os.ReadFile(path); err == nil && name(sum(have)) == name(want) {
		return path, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read filter: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("create folder for filter: %w", err)
	}
	err = put(path, func(tmp string) error { return os.WriteFile(tmp, filter, 0o644) })
	if err != nil {
		return "", fmt.Errorf("unpack filter: %w", err)
	}
	log.Info("filter unpacked", "path", path, "bytes", len(filter))
	return path, sweep(dir, path, time.Now())
}

//go:build !embedfilter

package module

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// What is missing where the filter can neither be found nor built.
var (
	ErrNoSources   = errors.New("this binary carries no filter and its sources are not here: run it in a checkout, or build it with `go tool task build`")
	ErrNoToolchain = errors.New("this binary carries no filter and there is no Go toolchain in PATH to build one: install Go, or build the binary with `go tool task build`")
)

// Ensure returns the path of the filter in dir, which is created where it is not
// there. This variant builds the module, unless it is there for the present sources.
// A build takes some seconds, the first on a machine up to a minute.
func Ensure(ctx context.Context, dir string, log *slog.Logger) (path string, err error) {
	root, err := sourceRoot()
	if err != nil {
		return "", err
	}
	return ensure(ctx, root, dir, log)
}

func ensure(ctx context.Context, root, dir string, log *slog.Logger) (path string, err error) {
	sources, err := hashSources(root)
	if err != nil {
		return "", fmt.Errorf("hash sources of filter: %w", err)
	}
	dir, err = filepath.Abs(dir) // the compiler runs elsewhere
	if err != nil {
		return "", fmt.Errorf("folder for filter: %w", err)
	}
	path = filepath.Join(dir, name(sources))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for filter: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("create folder for filter: %w", err)
	}
	log.Info("building filter", "sources", root)
	start := time.Now()
	if err := put(path, func(tmp string) error { return compile(ctx, root, tmp) }); err != nil {
		return "", fmt.Errorf("build filter: %w", err)
	}
	log.Info("filter built", "path", path, "took", time.Since(start).Round(time.Millisecond))
	return path, sweep(dir, path, time.Now())
}

// compile runs the Go toolchain. -s -w leave out what only debuggers read, half of
// the module.
func compile(ctx context.Context, root, out string) error {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return ErrNoToolchain
	}
	cmd := exec.CommandContext(ctx, goTool, "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, "./wasm/filter")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

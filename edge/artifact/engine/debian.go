package engine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// fromDebian unpacks a package and those of its dependencies that are not installed.
func fromDebian(ctx context.Context, pkg, main string, log *slog.Logger) (Engine, error) {
	home, err := cached(ctx, pkg, main, log, func(dir string) error { return aptUnpack(ctx, pkg, dir) })
	if err != nil {
		return Engine{}, err
	}
	libs, err := filepath.Glob(filepath.Join(home, "usr", "lib", "*-linux-gnu*"))
	if err != nil {
		return Engine{}, err
	}
	return Engine{
		Bin: filepath.Dir(filepath.Join(home, main)),
		Env: []string{"LD_LIBRARY_PATH=" + strings.Join(append(libs, filepath.Join(home, "usr", "lib")), ":")},
	}, nil
}

func aptReady() error {
	for _, name := range []string{"apt-get", "dpkg"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("no %s here: install the engine by hand", name)
		}
	}
	return nil
}

// aptUnpack asks apt what an installation would bring, downloads that, and unpacks
// it below dir.
func aptUnpack(ctx context.Context, pkg, dir string) error {
	if err := aptReady(); err != nil {
		return err
	}
	debs, err := os.MkdirTemp("", "debs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(debs)
	var options []string
	out, err := run(ctx, debs, nil, "apt-get", "install", "--simulate", "--no-install-recommends", pkg)
	if err != nil {
		// No package lists, or lists that are too old: fetch some of our own, which
		// needs no root.
		lists, cache := filepath.Join(debs, "lists"), filepath.Join(debs, "cache")
		for _, d := range []string{lists, cache} {
			if err := os.MkdirAll(filepath.Join(d, "partial"), 0o755); err != nil {
				return err
			}
		}
		options = []string{"-o", "Dir::State::Lists=" + lists, "-o", "Dir::Cache=" + cache, "-o", "APT::Sandbox::User=" + os.Getenv("USER")}
		if _, err := run(ctx, debs, nil, "apt-get", append(options, "update", "-q")...); err != nil {
			return err
		}
		if out, err = run(ctx, debs, nil, "apt-get", append(options, "install", "--simulate", "--no-install-recommends", pkg)...); err != nil {
			return err
		}
	}
	packages := installs(out)
	if len(packages) == 0 {
		return fmt.Errorf("apt has nothing to bring for %s", pkg)
	}
	if _, err := run(ctx, debs, nil, "apt-get", append(append(options, "download"), packages...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if _, err := run(ctx, debs, nil, "dpkg", "-x", f, dir); err != nil {
			return err
		}
	}
	return nil
}

// installs reads the "Inst <package> ..." lines of a simulated installation.
func installs(out string) (packages []string) {
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Inst" {
			packages = append(packages, f[1])
		}
	}
	return packages
}

package envoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/artifact"
	"github.com/tracegate/tracegate/edge/child"
)

// Find returns the path of the Envoy to run: the one named by path, else the one on
// PATH where it is of the pinned minor release, else the pinned one from the cache
// below cacheDir (artifact.DefaultDir where empty), downloaded on first use.
//
// An Envoy that the user names must be of the pinned minor release or newer; a newer
// one is used with a warning.
func Find(ctx context.Context, path, cacheDir string, log *slog.Logger) (string, error) {
	want, _ := parseVersion(artifact.EnvoyVersion)
	if path != "" {
		got, err := versionOf(ctx, path)
		switch {
		case err != nil:
			return "", fmt.Errorf("edge.envoy: %w", err)
		case got.less(want):
			return "", fmt.Errorf("edge.envoy: %s is Envoy %s, need %d.%d or newer", path, got, want.major, want.minor)
		case !got.sameMinor(want):
			log.Warn("envoy is newer than the tested one", "version", got.String(), "tested", artifact.EnvoyVersion)
		}
		return path, nil
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		got, err := versionOf(ctx, path)
		if err == nil && got.sameMinor(want) {
			return path, nil
		}
		log.Info("envoy on PATH does not fit", "path", path, "version", got.String(), "want", artifact.EnvoyVersion, "error", err)
	}
	path, err := artifact.Ensure(ctx, cacheDir, artifact.Envoy(), log)
	if err != nil {
		return "", err
	}
	if _, err := versionOf(ctx, path); err != nil {
		return "", fmt.Errorf("this machine cannot run the downloaded envoy (Linux needs glibc 2.31, macOS 15): %w", err)
	}
	return path, nil
}

type version struct{ major, minor, patch int }

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch) }

func (v version) sameMinor(w version) bool { return v.major == w.major && v.minor == w.minor }

// less compares minor releases; patches do not matter.
func (v version) less(w version) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

var versionPattern = regexp.MustCompile(`(\d+)\.(\d+)\.(\d+)`)

// parseVersion finds the version in what `envoy --version` prints:
// "envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL".
func parseVersion(s string) (version, error) {
	for part := range strings.SplitSeq(s, "/") {
		if m := versionPattern.FindStringSubmatch(strings.TrimSpace(part)); m != nil && strings.HasPrefix(strings.TrimSpace(part), m[0]) {
			var n [3]int
			for i := range n {
				v, err := strconv.Atoi(m[i+1])
				if err != nil {
					return version{}, fmt.Errorf("version %q: %w", part, err)
				}
				n[i] = v
			}
			return version{n[0], n[1], n[2]}, nil
		}
	}
	return version{}, errors.New("no version in what it prints")
}

// Version is that of the Envoy at path, such as 1.40.0.
func Version(ctx context.Context, path string) (string, error) {
	v, err := versionOf(ctx, path)
	return v.String(), err
}

func versionOf(ctx context.Context, path string) (version, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := child.Command(ctx, path, "--version").CombinedOutput()
	if err != nil {
		return version{}, fmt.Errorf("run %s --version: %w", path, err)
	}
	v, err := parseVersion(string(out))
	if err != nil {
		return version{}, fmt.Errorf("%s is not an Envoy: %w", path, err)
	}
	return v, nil
}

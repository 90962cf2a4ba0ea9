package envoy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/child"
)

// Lineage is a line of processes that take over from each other without closing a
// socket (Envoy's hot restart): the next one is given the listening sockets, and once it
// has its configuration the one before accepts nothing more, asks its clients to go with
// each response, and ends after the drain time. What is still open then is cut.
//
// A successor is ready only with a configuration from the control plane, and until then
// the one before serves; so an upgrade while the control plane is away waits instead of
// answering 404 (envoyproxy/envoy#5894 was that).
type Lineage struct {
	// Epoch counts processes from 0. What joins them is in [Options.Dir], the same for all.
	Epoch int
}

func (l *Lineage) arguments(dir string, drain time.Duration) []string {
	file := filepath.Join(dir, "base-id")
	switch {
	case l == nil:
		return []string{"--disable-hot-restart"}
	case l.Epoch == 0:
		return []string{"--use-dynamic-base-id", "--base-id-path", file}
	}
	base, err := os.ReadFile(file)
	if err != nil {
		base = []byte("0") // its own, and Envoy says that nobody is there
	}
	return []string{
		"--base-id", strings.TrimSpace(string(base)), "--restart-epoch", strconv.Itoa(l.Epoch),
		"--parent-shutdown-time-s", strconv.Itoa(max(2, int(drain.Seconds())+1)),
	}
}

// HandsOver says why an Envoy of the binary next cannot take over from one of the binary
// now: they share memory, whose form changes between some releases.
func HandsOver(ctx context.Context, now, next string) error {
	a, err := hotRestartVersion(ctx, now)
	if err != nil {
		return err
	}
	b, err := hotRestartVersion(ctx, next)
	if err != nil {
		return err
	}
	if a != b {
		return fmt.Errorf("hot restart versions differ (%s of %s, %s of %s): drain the edge and start it anew", a, now, b, next)
	}
	return nil
}

func hotRestartVersion(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := child.Command(ctx, path, "--hot-restart-version").Output()
	if err != nil {
		return "", fmt.Errorf("run %s --hot-restart-version: %w", path, err)
	}
	return strings.TrimSpace(string(out)), nil
}

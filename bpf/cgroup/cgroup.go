// Package cgroup finds what a control group is called and who is in it: from the id
// that programs see to a path, from a path to a Kubernetes pod and its container, from
// a path to its processes.
//
// It reads the cgroup2 hierarchy (or the unified one of a hybrid system) and nothing
// else; on systems without it every name is the id.
package cgroup

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Roots are the places the hierarchy is mounted at, best first.
func Roots() []string { return []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} }

// maxGroups bounds one walk.
const maxGroups = 20_000

// again is the time after which an unknown id has the hierarchy walked again.
const again = 30 * time.Second

// Names finds paths by id. It belongs to one goroutine.
type Names struct {
	root   string
	paths  map[uint64]string
	walked time.Time
}

// NewNames returns names of the hierarchy at the first root that has one.
func NewNames(roots ...string) *Names {
	for _, r := range roots {
		if _, err := os.Stat(filepath.Join(r, "cgroup.procs")); err == nil {
			return &Names{root: r}
		}
	}
	return &Names{}
}

// Name returns the path of the group with an id, from the root of the hierarchy, or
// "cgroup <id>" where it is not to be found.
func (n *Names) Name(id uint64, now time.Time) string {
	if path, ok := n.paths[id]; ok {
		return path
	}
	if n.root != "" && now.Sub(n.walked) >= again {
		n.walk(now)
		if path, ok := n.paths[id]; ok {
			return path
		}
	}
	return "cgroup " + strconv.FormatUint(id, 10)
}

func (n *Names) walk(now time.Time) {
	n.walked, n.paths = now, map[uint64]string{}
	// What cannot be read has no name; the rest has.
	_ = filepath.WalkDir(n.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // a group that has gone meanwhile
		}
		if len(n.paths) >= maxGroups {
			return fs.SkipAll
		}
		if id, ok := inode(path); ok {
			n.paths[id] = "/" + strings.TrimPrefix(strings.TrimPrefix(path, n.root), "/")
		}
		return nil
	})
}

var (
	podPart       = regexp.MustCompile(`pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})`)
	containerPart = regexp.MustCompile(`^(?:[a-z0-9]+-)*([0-9a-f]{64})(?:\.scope)?$`)
)

// Pod returns the UID of the Kubernetes pod that a path belongs to and the id of the
// container, each empty if it is none: both cgroup drivers (cgroupfs, systemd) and the
// usual runtimes.
func Pod(path string) (uid, container string) {
	if m := podPart.FindStringSubmatch(path); m != nil {
		uid = strings.ReplaceAll(m[1], "_", "-")
	}
	if m := containerPart.FindStringSubmatch(filepath.Base(path)); m != nil && uid != "" {
		container = m[1]
	}
	return uid, container
}

// Of returns the path of a process's group in the unified hierarchy.
func Of(pid int) (string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", fmt.Errorf("control group of process %d: %w", pid, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if path, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			return path, nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("control group of process %d: %w", pid, err)
	}
	return "", fmt.Errorf("control group of process %d: not in the unified hierarchy", pid)
}

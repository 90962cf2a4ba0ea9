//go:build unix

package cgroup

import (
	"os"
	"syscall"
)

// inode is the number of a group's folder, which is the group's id.
func inode(path string) (uint64, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(st.Ino), true //nolint:unconvert // 32 bits on some systems
}

//go:build !unix

package cgroup

func inode(string) (uint64, bool) { return 0, false }

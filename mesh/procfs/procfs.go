// Package procfs reads numbers that the kernel tells about memory and CPU. It is a leaf; where
// there is no /proc, its functions say so by their errors.
package procfs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Value is the number after the first occurrence of a word in a file of /proc.
func Value(path, word string) (int64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(raw, []byte(word))
	fields := bytes.Fields(after)
	if len(fields) == 0 {
		return 0, fmt.Errorf("%s has no %s", path, word)
	}
	return strconv.ParseInt(string(fields[0]), 10, 64)
}

// Kernel is what the kernel holds in slabs and in the buffers of TCP sockets, in bytes, for
// all processes of the machine.
func Kernel() (int64, error) {
	slab, err := Value("/proc/meminfo", "Slab:")
	if err != nil {
		return 0, err
	}
	pages, err := Value("/proc/net/sockstat", "mem")
	return slab<<10 + pages*int64(os.Getpagesize()), err
}

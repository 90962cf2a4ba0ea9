//go:build linux && (amd64 || arm64)

package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Capabilities is a set of CAP_* bits.
type Capabilities uint64

// Effective returns what the calling thread may do now.
func Effective() (Capabilities, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return Capabilities(uint64(data[1].Effective)<<32 | uint64(data[0].Effective)), nil
}

// Has says whether a CAP_* number is in the set.
func (c Capabilities) Has(number int) bool { return c>>number&1 == 1 }

// CanLoad says whether programs that read kernel memory may be loaded.
func (c Capabilities) CanLoad() bool {
	return c.Has(unix.CAP_SYS_ADMIN) || c.Has(unix.CAP_BPF) && c.Has(unix.CAP_PERFMON)
}

//go:build linux && (amd64 || arm64)

package kernel

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

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

// ErrKept is returned by Drop in a binary built with cgo, where the runtime cannot
// change all threads at once.
var ErrKept = errors.New("capabilities kept: this binary was built with cgo")

// Drop gives up, in all threads and for good, every capability but those named, and
// the means to gain others by running a program. Those that the process does not have
// are not gained.
func Drop(keep ...int) error {
	have, err := Effective()
	if err != nil {
		return err
	}
	var want Capabilities
	for _, c := range keep {
		want |= have & (1 << c)
	}
	// The bounding set first: changing it needs CAP_SETPCAP, which the last step drops.
	if have.Has(unix.CAP_SETPCAP) {
		for c := range unix.CAP_LAST_CAP + 1 {
			if want.Has(c) {
				continue
			}
			if err := everyThread(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0); err != nil && !errors.Is(err, syscall.EINVAL) {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	if err := everyThread(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(want), uint32(want>>32)
	data := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
	if err := everyThread(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

func everyThread(trap, a1, a2, a3 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return ErrKept
	default:
		return errno
	}
}

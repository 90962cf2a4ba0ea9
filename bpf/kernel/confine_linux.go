//go:build linux && (amd64 || arm64)

package kernel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confined tells the second run of a program which file descriptor keeps the kernel's
// measuring of run times on; -1: none.
const confined = "TRACEGATE_PROBE_CONFINED"

// Confine gives up, for good, every capability but those named, and the means to gain
// others, by running this program anew with the same arguments: it does not return but
// in that second run, or with an error in the first. stats, if not nil, keeps the
// kernel's measuring of run times on until it is closed; only the first run, with
// CAP_SYS_ADMIN, may switch it on.
//
// Changing all threads of a running process lost: Go does not do that where threads may
// belong to C code, nor where a library passes for it (purego).
func Confine(keep ...int) (stats *os.File, err error) {
	if fd, ok := os.LookupEnv(confined); ok {
		if err := os.Unsetenv(confined); err != nil {
			return nil, err
		}
		if n, err := strconv.Atoi(fd); err == nil && n >= 0 {
			unix.CloseOnExec(n)
			stats = os.NewFile(uintptr(n), "run time statistics")
		}
		return stats, nil
	}
	have, err := Effective()
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread() // the thread that runs the program anew is the one that counts
	defer runtime.UnlockOSThread()
	var want Capabilities
	for _, c := range keep {
		want |= have & (1 << c)
	}
	fd := enableStats()
	if err := confineThread(have, want); err != nil {
		return nil, err
	}
	err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), confined+"="+strconv.Itoa(fd)))
	return nil, fmt.Errorf("run anew: %w", err)
}

// enableStats switches the measuring of run times on; the file descriptor outlives the
// first run. -1: not allowed.
func enableStats() int {
	const bpfEnableStats = 32 // bpf(2): BPF_ENABLE_STATS
	attr := struct{ kind uint32 }{unix.BPF_STATS_RUN_TIME}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, bpfEnableStats, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return -1
	}
	if _, err := unix.FcntlInt(fd, unix.F_SETFD, 0); err != nil {
		_ = unix.Close(int(fd))
		return -1
	}
	return int(fd)
}

// confineThread changes the calling thread so that a program it runs has no more than
// want, whoever its user is.
func confineThread(have, want Capabilities) error {
	if have.Has(unix.CAP_SETPCAP) {
		for c := range unix.CAP_LAST_CAP + 1 {
			if want.Has(c) {
				continue
			}
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(want), uint32(want>>32)
	data := [2]unix.CapUserData{{Effective: low, Permitted: low, Inheritable: low}, {Effective: high, Permitted: high, Inheritable: high}}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	for c := range unix.CAP_LAST_CAP + 1 { // what a user who is not root takes along
		if !want.Has(c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("pass capability %d on: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	return nil
}

//go:build unix

package telemetry

import (
	"syscall"
	"time"
)

// processTime is the CPU time that this process has used, in user and system mode.
func processTime() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

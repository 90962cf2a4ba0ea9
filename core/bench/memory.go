//go:build linux

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/tracegate/tracegate/mesh/procfs"
)

// usage is what a process uses, measured by itself after collecting its garbage.
type usage struct {
	RSS, Heap, Stacks int64 // bytes
	Collections       uint32
	CPU               time.Duration
}

func measureUsage(struct{}) (usage, error) {
	var before runtime.MemStats
	runtime.ReadMemStats(&before) // before the collections that are forced here
	cpu, err := cpuTime()
	if err != nil {
		return usage{}, err
	}
	for range 3 { // pools are emptied by the second, stacks shrink by half each time
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	rss, err := procfs.Value("/proc/self/status", "VmRSS:")
	return usage{
		RSS: rss << 10, Heap: int64(m.HeapAlloc), Stacks: int64(m.StackInuse), Collections: before.NumGC - before.NumForcedGC, CPU: cpu,
	}, err
}

func cpuTime() (time.Duration, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), nil
}

// allowFiles raises the limit of open files to what may be had and returns it.
func allowFiles() (int, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("read limit of open files: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("raise limit of open files: %w", err)
	}
	return int(min(l.Max, 1<<30)), nil
}

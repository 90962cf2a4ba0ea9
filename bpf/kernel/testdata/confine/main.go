//go:build linux && (amd64 || arm64)

// Command confine gives up privileges and prints what the kernel then says about each of
// its threads, for the test of package kernel.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tracegate/tracegate/bpf/kernel"
)

func main() {
	stats, err := kernel.Confine(unix.CAP_BPF, unix.CAP_PERFMON)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("Stats:\t%v\n", stats != nil)
	var started sync.WaitGroup
	for range 4 { // some threads beside the runtime's own
		started.Add(1)
		go func() {
			started.Done()
			_ = unix.Nanosleep(&unix.Timespec{Sec: int64(10 * time.Second / time.Second)}, nil)
		}()
	}
	started.Wait()
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "CapEff:") || strings.HasPrefix(line, "CapPrm:") || strings.HasPrefix(line, "CapBnd:") || strings.HasPrefix(line, "NoNewPrivs:") {
				fmt.Print(line)
			}
		}
	}
}

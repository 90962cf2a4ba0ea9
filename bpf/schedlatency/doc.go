// Package schedlatency measures how long threads of watched processes wait for a CPU:
// after a wake-up, and after being preempted. Together they are the kernel's own
// run_delay (/proc/<pid>/schedstat), with its distribution instead of its sum.
//
// They are read from that count, at sched_switch, when the thread leaves the CPU again.
// (Own time stamps at sched_wakeup and sched_switch lost: three hooks, two look-ups in
// a hash map and two clocks for each wait.)
//
// The delay that a goroutine sees before this, waiting for a thread, is the Go
// scheduler's: bpf/goruntime reads that.
package schedlatency

//go:generate go tool bpf2go -tags linux -target bpfel bpf schedlatency.c -- -I../headers -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function -Wno-unused-const-variable

// Name of the probe.
const Name = "schedlatency"

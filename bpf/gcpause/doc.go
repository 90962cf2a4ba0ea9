// Package gcpause measures how long Go programs stop their world and how long a
// garbage collection marks, by uprobes at the entries of four functions of the Go
// runtime, for processes that run unchanged and know nothing of it.
//
// Where uprobes are missing, or an executable's functions cannot be found, the process
// tells pauses itself (bpf/goruntime), if it serves metrics.
package gcpause

//go:generate go tool bpf2go -tags linux -target bpfel bpf gcpause.c -- -I../headers -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function -Wno-unused-const-variable

// Name of the probe.
const Name = "gcpause"

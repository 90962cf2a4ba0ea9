// Package acceptqueue measures how long established connections wait until the server
// accepts them, and how full the accept queues are.
//
// The wait needs an exit probe on inet_csk_accept (fexit, Linux 5.17 and an
// architecture that has it). Length, limit and drops come from the kernel's socket
// diagnostics (netlink, no privilege), polled: all that is left where fexit is
// missing. The iter/tcp program lost to it: it walks every connection to find the
// listeners.
package acceptqueue

//go:generate go tool bpf2go -tags linux -target bpfel bpf acceptqueue.c -- -I../headers -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function -Wno-unused-const-variable

// Name of the probe.
const Name = "acceptqueue"

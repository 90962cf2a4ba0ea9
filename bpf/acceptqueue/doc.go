// Package acceptqueue measures how long established connections wait until the server
// accepts them, and how full the accept queues are.
//
// Length, limit and drops come from the kernel's socket diagnostics (netlink, no
// privilege needed); the iter/tcp program lost to them, it walks every connection to
// find the listeners. The wait is found by looking every few milliseconds which
// connections have been accepted: an exit probe on inet_csk_accept would be exact and
// lost all the same, for fexit needs trampolines, which hardened kernels switch off.
package acceptqueue

//go:generate go tool bpf2go -tags linux -target bpfel bpf acceptqueue.c -- -I../headers -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function -Wno-unused-const-variable

// Name of the probe.
const Name = "acceptqueue"

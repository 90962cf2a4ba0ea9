// Package tcpconnect measures how long connect takes (SYN_SENT to ESTABLISHED), for
// each destination and process, both address families, and counts why it failed.
//
// One tracepoint, inet_sock_set_state (Linux 4.16), sees both ends. Tracing the
// connect system call lost: with non-blocking sockets, Go's only kind, it returns at
// once. What it does not see: name resolution and TLS, which stand in traces.
package tcpconnect

//go:generate go tool bpf2go -tags linux -target bpfel bpf tcpconnect.c -- -I../headers -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function -Wno-unused-const-variable

// Name of the probe.
const Name = "tcpconnect"

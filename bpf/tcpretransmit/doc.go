// Package tcpretransmit counts segments that TCP sent again (data, SYN, SYN-ACK) for
// each remote end and process, and packets the kernel dropped, by its own reason.
//
// Drops are of the whole machine: a dropped packet has often no owner yet.
package tcpretransmit

//go:generate go tool bpf2go -tags linux -target bpfel bpf tcpretransmit.c -- -I../headers -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function -Wno-unused-const-variable

// Name of the probe.
const Name = "tcpretransmit"

// Package bpf is the second source of measurements: what the kernel knows about the
// latency of a service and its pools, without the service's help. Run loads the probes
// (one folder each), reads them, judges them, and serves what they say.
//
// Histograms are kept in the kernel, per CPU: an event costs a map access and two
// additions there, and nothing here. One event in a buffer each, as many agents do,
// lost: its cost grows with traffic and it drops what it cannot carry. Only slow events
// come to user space, as exemplars, bounded, and what is left out is counted by reason.
//
// A probe that cannot work says so in one line and the others go on; without
// privilege, or off Linux, all that is left is what Go processes say about themselves.
// A probe that costs more than its budget samples, and at last switches itself off.
//
// It does not decide and does not know traffic groups: it attributes to service and
// pool (Processes), and gives causes that a decision about a group can quote. The root
// package calls Run; `tracegate probe top` (bpf/top) shows a Snapshot in a terminal.
package bpf

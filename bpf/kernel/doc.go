// Package kernel loads the programs of a probe, attaches them, and reads what they
// share: counters, exemplars of slow events, their own cost. It also knows what this
// kernel can do and which capabilities are needed.
//
// It does not know what a program measures: the folders beside it do. On systems
// other than Linux on amd64 or arm64 it is empty.
//
// Needed: BTF (/sys/kernel/btf/vmlinux, Linux 5.5 and later), CAP_BPF and CAP_PERFMON
// (Linux 5.8; before it CAP_SYS_ADMIN). Programs attach by BTF and raw tracepoints, so
// neither kprobes nor tracefs are needed. Classic tracepoints and kprobes lost: the
// first need a mounted tracefs, the second break with every renamed function.
package kernel

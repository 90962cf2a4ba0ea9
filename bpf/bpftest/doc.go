// Package bpftest is what the tests of the probes share: an environment to load
// programs in, or a skip that says why there is none; a network namespace of their
// own with a line that delays packets by known amounts. The line is a TUN device that
// sends every packet back with its addresses swapped: netem lost to it, for many
// kernels are built without.
package bpftest

// Package e2e holds the tests of the edge as a whole: a real Envoy with the real
// filter, programmed by the real control plane, in front of an upstream that tells
// what reached it.
//
// What is compared with what: the headers of docs/architecture.md with those that
// arrive, and Envoy's own counters with what the tests did. The churn test is a
// measured program as well; with -changes 1000 -sockets 200 it prints the figures
// of docs/benchmarks.md.
package e2e

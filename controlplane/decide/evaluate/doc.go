// Package evaluate measures how soon and how surely controlplane/decide finds faults. It
// draws labelled traffic from a seed, aggregates it as the store does, and plays it past
// decide.Decide and past stand-ins for how others decide, all on the same requests.
//
// Two things are simpler than in the product: percentiles of a window are the
// middle of buckets of 2% (the store has such buckets too, and interpolates), and what is
// decided does not change the traffic, so that every method sees the same.
package evaluate

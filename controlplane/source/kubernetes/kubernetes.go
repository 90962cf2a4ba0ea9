// Package kubernetes reads from a cluster what the control plane otherwise reads from
// files: [Endpoints] are the pods of every pool, [Resources] lays Routes, Cohorts and
// TrafficGroups over the policy. Both hand on whole, parsed values through the same channels
// as files do.
//
// Which pods belong to a pool is read from EndpointSlices, which bear the labels of the
// pool's Service (mesh/operator makes one for each pool): no pod has to be watched, and
// readiness and termination are already worked out. Watching Pods lost: it costs as much
// memory as the pods, and tells of a pod's end later.
//
// What fails: while the API server is away, or when it knows no endpoint at all, an
// error is sent, the receiver keeps the last set, and status shows why. A pool that
// loses its last pod is no failure: the edge then serves from baseline. A resource that
// does not go together with the rest is left out, and its condition Accepted says what is
// wrong with it. Of two TrafficGroups that select the same group the older one counts, and
// the policy's own entry before both. Programmed follows once every edge has it: the
// control plane tells what became of each policy (source.Fate).
//
// What the control plane may do is what markers at its parts say, in the namespaces that it
// reads: `go tool task generate` makes the ClusterRole tracegate-controlplane of them.
package kubernetes

import (
	"context"
	"time"
)

// defaultSettle is how long changes are collected: a Deployment that gets 20 pods
// writes its slices several times.
const defaultSettle = 5 * time.Millisecond

// coalesce calls emit for every change, but for those that come within settle of each
// other once, until ctx is done. emit returns false to end.
func coalesce(ctx context.Context, changed <-chan struct{}, settle time.Duration, emit func() bool) {
	timer := time.NewTimer(settle)
	timer.Stop()
	defer timer.Stop()
	waiting := false
	// What can happen: something changed; it has been a moment; the end.
	for {
		select {
		case <-changed:
			if !waiting { // later changes do not put it off
				waiting = true
				timer.Reset(settle)
			}
		case <-timer.C:
			waiting = false
			if !emit() {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// poke notes that something changed, where that is not noted already.
func poke(changed chan struct{}) {
	select {
	case changed <- struct{}{}:
	default:
	}
}

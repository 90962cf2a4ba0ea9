package operator

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/operator/render"
	"github.com/tracegate/tracegate/observability/sli"
)

// Path is every pool that serves a group's requests, as its traces show.
type Path func(ctx context.Context, of group.ID) ([]sli.Hop, error)

const (
	// pathEvery is how often a policy asks for the path: it changes with releases, not
	// with load.
	pathEvery   = 10 * time.Second
	pathTimeout = 2 * time.Second
)

// along is one pool on a policy's call path, besides the target.
type along struct {
	service, pool string
	perRequest    float64 // requests it gets for each that the target does
	qpsPerPod     int64
	min, max      int32
}

// path finds the pools of a policy's call path. What is not a MicroService of the
// namespace, or says nothing of what a pod of it serves, is left out. Where traces are not
// to be had the last answer counts.
func (p *policies) path(ctx context.Context, sp *v1alpha1.ScalingPolicy, of group.ID, m *memory, now time.Time) ([]along, error) {
	if sp.Spec.CallPath == nil || p.paths == nil {
		return nil, nil
	}
	var failed error
	if m.hops == nil || now.Sub(m.asked) >= pathEvery {
		m.asked = now
		ask, cancel := context.WithTimeout(ctx, pathTimeout)
		hops, err := p.paths(ask, of)
		cancel()
		if err == nil {
			m.hops = hops
		}
		failed = err
	}
	pools := map[sli.Hop]render.Pool{}
	var services v1alpha1.MicroServiceList
	if err := p.client.List(ctx, &services, client.InNamespace(sp.Namespace)); err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	for i := range services.Items {
		for _, pool := range render.Pools(&services.Items[i]) {
			pools[sli.Hop{Service: services.Items[i].Name, Pool: pool.Name}] = pool
		}
	}
	return reached(sp.Spec.Target, m.hops, pools), failed
}

// reached is a pure function: which of the hops can be scaled, and by how much.
func reached(target v1alpha1.ScaleTarget, hops []sli.Hop, pools map[sli.Hop]render.Pool) []along {
	base := 1.0
	for _, h := range hops {
		if h.Service == target.Service && h.Pool == target.Pool && h.PerRequest > 0 {
			base = h.PerRequest
		}
	}
	var out []along
	for _, h := range hops {
		pool := pools[sli.Hop{Service: h.Service, Pool: h.Pool}]
		if h.Service == target.Service && h.Pool == target.Pool || pool.Autoscaling == nil {
			continue
		}
		for _, metric := range pool.Autoscaling.Metrics {
			if metric.QPSPerPod != nil && metric.TrafficGroup == "" {
				out = append(out, along{
					service: h.Service, pool: h.Pool, perRequest: h.PerRequest / base,
					qpsPerPod: *metric.QPSPerPod, min: pool.Autoscaling.MinReplicas, max: pool.Autoscaling.MaxReplicas,
				})
				break
			}
		}
	}
	return out
}

// pathFloors is what the pools of a path need for a rate at the target, within their own
// bounds and the budget. has are floors that hold still: they are kept, and count.
func pathFloors(path []along, rate float64, budget int32, has []v1alpha1.PathFloor) []v1alpha1.PathFloor {
	out, left := slices.Clone(has), int64(budget)
	for _, f := range has {
		left -= int64(f.Floor)
	}
	at, more, total := make([]int, len(path)), make([]int64, len(path)), int64(0) // into out; pods to add
	for i, a := range path {
		at[i] = slices.IndexFunc(out, func(f v1alpha1.PathFloor) bool { return f.Service == a.service && f.Pool == a.pool })
		floor := int64(a.min)
		if at[i] >= 0 {
			floor = int64(out[at[i]].Floor)
			left += int64(a.min) // what its autoscaler keeps costs no budget
		}
		need := int64(min(max(math.Ceil(rate*a.perRequest/float64(a.qpsPerPod)), float64(a.min)), float64(a.max)))
		more[i] = max(0, need-floor)
		total += more[i]
	}
	for i, a := range path {
		if total > left {
			more[i] = more[i] * max(left, 0) / total
		}
		switch {
		case more[i] == 0:
		case at[i] >= 0:
			out[at[i]].Floor += int32(more[i])
		default:
			out = append(out, v1alpha1.PathFloor{Service: a.service, Pool: a.pool, Floor: a.min + int32(more[i])})
		}
	}
	slices.SortFunc(out, func(a, b v1alpha1.PathFloor) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Pool, b.Pool))
	})
	return out
}

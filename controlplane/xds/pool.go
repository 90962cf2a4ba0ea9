package xds

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
)

// settings replaces defaults of a pool's cluster by what its policy says.
func settings(c *clusterv3.Cluster, pool plan.Pool) {
	if b := pool.CircuitBreakers; b != nil {
		t := c.CircuitBreakers.Thresholds[0]
		setCount(&t.MaxConnections, b.MaxConnections)
		setCount(&t.MaxPendingRequests, b.MaxPendingRequests)
		setCount(&t.MaxRequests, b.MaxRequests)
		setCount(&t.MaxRetries, b.MaxRetries)
		if r := b.RetryBudget; r != nil {
			t.MaxRetries = nil // Envoy would ignore it
			t.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{BudgetPercent: &typev3.Percent{Value: r.Percent}}
			setCount(&t.RetryBudget.MinRetryConcurrency, r.MinConcurrency)
		}
	}
	if o := pool.OutlierDetection; o != nil {
		d := c.OutlierDetection
		setCount(&d.ConsecutiveLocalOriginFailure, o.ConsecutiveConnectFailures)
		if o.Consecutive5xx > 0 {
			d.Consecutive_5Xx, d.EnforcingConsecutive_5Xx = wrapperspb.UInt32(o.Consecutive5xx), wrapperspb.UInt32(100)
		}
		setDuration(&d.Interval, o.Interval)
		setDuration(&d.BaseEjectionTime, o.BaseEjectionTime)
		setDuration(&d.MaxEjectionTime, max(o.MaxEjectionTime, o.BaseEjectionTime))
		setCount(&d.MaxEjectionPercent, o.MaxEjectionPercent)
	}
	if h := pool.HealthCheck; h != nil {
		check := c.HealthChecks[0]
		if h.Path != "" {
			check.GetHttpHealthCheck().Path = h.Path
		}
		setDuration(&check.Interval, h.Interval)
		setDuration(&check.NoTrafficInterval, h.Interval)
		setDuration(&check.Timeout, h.Timeout)
		setCount(&check.UnhealthyThreshold, h.UnhealthyThreshold)
		setCount(&check.HealthyThreshold, h.HealthyThreshold)
	}
	if p := pool.PanicThreshold; p != nil {
		c.CommonLbConfig.HealthyPanicThreshold = &typev3.Percent{Value: *p}
	}
}

func lbPolicy(b policy.LoadBalancing) clusterv3.Cluster_LbPolicy {
	switch b {
	case policy.RoundRobin:
		return clusterv3.Cluster_ROUND_ROBIN
	case policy.Random:
		return clusterv3.Cluster_RANDOM
	case policy.RingHash:
		return clusterv3.Cluster_RING_HASH
	case policy.Maglev:
		return clusterv3.Cluster_MAGLEV
	default:
		return clusterv3.Cluster_LEAST_REQUEST
	}
}

func setCount(field **wrapperspb.UInt32Value, n uint32) {
	if n > 0 {
		*field = wrapperspb.UInt32(n)
	}
}

func setDuration(field **durationpb.Duration, d time.Duration) {
	if d > 0 {
		*field = durationpb.New(d)
	}
}

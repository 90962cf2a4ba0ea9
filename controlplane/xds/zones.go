package xds

import (
	"cmp"
	"maps"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	lbv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	roundv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
)

// localities are endpoints by zone, in the order of the zones' names. Where no zone is
// known there is one locality, without a name, as there always was.
func localities(t tier, priority uint32, weights map[string]uint32) ([]*endpointv3.LocalityLbEndpoints, error) {
	byZone := map[string][]string{}
	for _, a := range t.addrs {
		byZone[t.zones[a]] = append(byZone[t.zones[a]], a)
	}
	if len(t.addrs) == 0 {
		byZone[""] = nil
	}
	var out []*endpointv3.LocalityLbEndpoints
	for _, zone := range slices.Sorted(maps.Keys(byZone)) {
		l, err := endpoints(byZone[zone], priority)
		if err != nil {
			return nil, err
		}
		for i, a := range byZone[zone] {
			if slices.Contains(t.draining, a) {
				l.LbEndpoints[i].HealthStatus = corev3.HealthStatus_DRAINING
			}
		}
		if len(t.zones) > 0 {
			l.Locality = &corev3.Locality{Zone: zone}
		}
		if len(weights) > 0 {
			l.LoadBalancingWeight = wrapperspb.UInt32(cmp.Or(weights[zone], 1))
		}
		out = append(out, l)
	}
	return out, nil
}

// balance says what zones count for. An edge that prefers its own needs to know which
// that is and that it is there itself: edge/bootstrap has both. (Zone aware routing
// without force_local_zone lost: it evens out load between zones, so that an edge whose
// zone has few instances sends most requests elsewhere.)
func balance(c *clusterv3.Cluster, pool plan.Pool) error {
	switch z := pool.Balances; {
	case pool.LoadBalancing.Hashes():
		return balanceBy(c)(hashing(pool))
	case z == nil:
	case z.Prefer:
		return balanceBy(c)(zoneAware(pool.LoadBalancing))
	default:
		c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		}
	}
	return nil
}

// balanceBy sets a way that [clusterv3.Cluster.LbPolicy] cannot say.
func balanceBy(c *clusterv3.Cluster) func(name string, config proto.Message) error {
	return func(name string, config proto.Message) error {
		a, err := packed(config)
		if err != nil {
			return err
		}
		c.LoadBalancingPolicy = &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
			TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: name, TypedConfig: a},
		}}}
		return nil
	}
}

// zoneAware is the pool's own way among the instances of an edge's zone.
func zoneAware(b policy.LoadBalancing) (name string, config proto.Message) {
	local := &lbv3.LocalityLbConfig{
		LocalityConfigSpecifier: &lbv3.LocalityLbConfig_ZoneAwareLbConfig_{ZoneAwareLbConfig: &lbv3.LocalityLbConfig_ZoneAwareLbConfig{
			RoutingEnabled: &typev3.Percent{Value: 100},
			MinClusterSize: wrapperspb.UInt64(1),
			ForceLocalZone: &lbv3.LocalityLbConfig_ZoneAwareLbConfig_ForceLocalZone{MinSize: wrapperspb.UInt32(1)},
		}},
	}
	switch b {
	case policy.RoundRobin:
		return "envoy.load_balancing_policies.round_robin", &roundv3.RoundRobin{LocalityLbConfig: local}
	case policy.Random:
		return "envoy.load_balancing_policies.random", &randomv3.Random{LocalityLbConfig: local}
	default:
		return "envoy.load_balancing_policies.least_request", &leastv3.LeastRequest{LocalityLbConfig: local}
	}
}

package xds

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	lbv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	ringv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
)

// Which value decides stands in the pool's cluster. (In each route, where Envoy had it
// first, it lost: it would be in thousands of routes, and which pool serves is not known
// there.)

// hashing is the pool's way to find the instance of a value.
func hashing(pool plan.Pool) (name string, config proto.Message) {
	by := &lbv3.ConsistentHashingLbConfig{HashPolicy: make([]*routev3.RouteAction_HashPolicy, len(pool.HashBy))}
	for i, value := range pool.HashBy {
		by.HashPolicy[i] = hashPolicy(value)
		by.HashPolicy[i].Terminal = true // the first that there is, and not all together
	}
	var weighted *lbv3.LocalityLbConfig_LocalityWeightedLbConfig
	if pool.Balances != nil {
		weighted = &lbv3.LocalityLbConfig_LocalityWeightedLbConfig{}
	}
	if pool.LoadBalancing == policy.Maglev {
		return "envoy.load_balancing_policies.maglev", &maglevv3.Maglev{ConsistentHashingLbConfig: by, LocalityWeightedLbConfig: weighted}
	}
	return "envoy.load_balancing_policies.ring_hash", &ringv3.RingHash{ConsistentHashingLbConfig: by, LocalityWeightedLbConfig: weighted}
}

func hashPolicy(by string) *routev3.RouteAction_HashPolicy {
	if header, ok := strings.CutPrefix(by, policy.LimitHeader); ok {
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: header},
		}}
	}
	if cookie, ok := strings.CutPrefix(by, policy.HashCookie); ok {
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Cookie_{
			Cookie: &routev3.RouteAction_HashPolicy_Cookie{Name: cookie},
		}}
	}
	if by == "address" {
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
		}}
	}
	return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_FilterState_{
		FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: userState},
	}}
}

// userState is the name under which [userFilter] keeps who asks.
const userState = "tracegate.user"

// userFilter keeps whose session a request has, as its token says, where Envoy can hash it;
// nobody's is not kept. It stands in every listener, because one that came with a pool would
// drain it. (A header for it lost: it would have to be taken away again before the upstream.)
func userFilter() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: "envoy.filters.http.set_filter_state", ConfigType: &hcmv3.HttpFilter_TypedConfig{
		TypedConfig: mustPack(&setstatev3.Config{OnRequestHeaders: []*statev3.FilterStateValue{{
			Key:         &statev3.FilterStateValue_ObjectKey{ObjectKey: userState},
			FactoryKey:  "envoy.hashable_string",
			SkipIfEmpty: true,
			Value: &statev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
					Specifier: &corev3.DataSource_InlineString{InlineString: "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:" + claimsMetadata + ":sub)%"},
				}},
				OmitEmptyValues: true,
			}},
		}}}),
	}}
}

package xds

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ratelimitconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	globalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/observability/semconv"
)

// RateLimitName is the filter that asks the rate limit service, its ECDS resource and
// the service's cluster.
const RateLimitName = "ratelimit"

const (
	globalURL  = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit"
	rbacFilter = "envoy.filters.http.rbac"

	// RateLimitDomain is that of all descriptors.
	RateLimitDomain = "tracegate"
	// rateLimitTimeout is how long a request waits for its counts; then it passes.
	rateLimitTimeout = 100 * time.Millisecond
	claimsMetadata   = "claims"
)

// Keys of descriptors. The service needs no configuration: a descriptor says itself
// what the limit is, so that what counts is the policy that the edge has.
const (
	LimitName    = "limit"
	LimitRate    = "rate" // requests/seconds, as "100/60"
	LimitShadow  = "shadow"
	LimitClosed  = "closed"  // refuse while counts are not to be had
	LimitBaggage = "baggage" // the service takes the tenant out of it
)

// globalLimit is the filter. It asks nothing where no rule names a limit. Where the
// service is away, requests pass and Envoy counts them
// (cluster.<service>.<pool>.ratelimit.failure_mode_allowed).
func globalLimit(addr string) (*anypb.Any, error) {
	if addr == "" {
		return passThrough(), nil
	}
	return packed(&globalv3.RateLimit{
		Domain:  RateLimitDomain,
		Timeout: durationpb.New(rateLimitTimeout),
		RateLimitService: &ratelimitconfigv3.RateLimitServiceConfig{
			TransportApiVersion: corev3.ApiVersion_V3,
			GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: RateLimitName},
			}},
		},
		EnableXRatelimitHeaders:        globalv3.RateLimit_DRAFT_VERSION_03,
		DisableXEnvoyRatelimitedHeader: true,
	})
}

func rateLimitCluster(addr string) (*clusterv3.Cluster, error) {
	e, err := endpoints([]string{addr}, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", RateLimitName, err)
	}
	return grpcCluster(RateLimitName, e), nil
}

// routeLimits are what a route asks the service.
func routeLimits(names []string, limits []policy.Limit) []*routev3.RateLimit {
	var out []*routev3.RateLimit
	for _, name := range names {
		for _, l := range limits {
			if l.Name == name {
				out = append(out, &routev3.RateLimit{Actions: limitActions(l)})
			}
		}
	}
	return out
}

func limitActions(l policy.Limit) []*routev3.RateLimit_Action {
	generic := func(key, value string) *routev3.RateLimit_Action {
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
			GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: key, DescriptorValue: value},
		}}
	}
	out := []*routev3.RateLimit_Action{
		generic(LimitName, l.Name),
		generic(LimitRate, strconv.Itoa(int(l.Requests))+"/"+strconv.Itoa(int(l.Window()/time.Second))),
	}
	if l.Shadow {
		out = append(out, generic(LimitShadow, "true"))
	}
	if l.Failure == policy.FailClosed {
		out = append(out, generic(LimitClosed, "true"))
	}
	for _, per := range l.Per {
		out = append(out, limitPer(per))
	}
	return out
}

func limitPer(per string) *routev3.RateLimit_Action {
	fromHeader := func(key, name string) *routev3.RateLimit_Action {
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{
			RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{DescriptorKey: key, HeaderName: name, SkipIfAbsent: true},
		}}
	}
	switch header, isHeader := strings.CutPrefix(per, policy.LimitHeader); {
	case isHeader:
		return fromHeader(strings.ToLower(per), header)
	case per == "tenant":
		return fromHeader(LimitBaggage, semconv.HeaderBaggage)
	case per == "group":
		return fromHeader(per, semconv.HeaderGroup)
	case per == "address":
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RemoteAddress_{RemoteAddress: &routev3.RateLimit_Action_RemoteAddress{}}}
	default: // user
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_Metadata{Metadata: &routev3.RateLimit_Action_MetaData{
			DescriptorKey: per, SkipIfAbsent: true,
			MetadataKey: &metadatav3.MetadataKey{Key: "envoy.filters.http.jwt_authn", Path: []*metadatav3.MetadataKey_PathSegment{
				{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: claimsMetadata}},
				{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: "sub"}},
			}},
		}}}
	}
}

// addressRule lets in who is allowed and not denied.
func addressRule(a *policy.Addresses) (*rbacv3.RBACPerRoute, error) {
	allow, err := principals(a.Allow)
	if err != nil {
		return nil, err
	}
	deny, err := principals(a.Deny)
	if err != nil {
		return nil, err
	}
	everybody := &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_Any{Any: true}}
	if len(allow) == 0 {
		allow = []*rbacconfigv3.Principal{everybody}
	}
	who := []*rbacconfigv3.Principal{orIDs(allow)}
	if len(deny) > 0 {
		who = append(who, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: orIDs(deny)}})
	}
	return &rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{
		Action: rbacconfigv3.RBAC_ALLOW,
		Policies: map[string]*rbacconfigv3.Policy{"addresses": {
			Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
			Principals:  []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_AndIds{AndIds: &rbacconfigv3.Principal_Set{Ids: who}}}},
		}},
	}}}, nil
}

func orIDs(ids []*rbacconfigv3.Principal) *rbacconfigv3.Principal {
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_OrIds{OrIds: &rbacconfigv3.Principal_Set{Ids: ids}}}
}

// principals are clients by the address that the connection manager trusts, see
// trusted hops there.
func principals(list []string) ([]*rbacconfigv3.Principal, error) {
	var out []*rbacconfigv3.Principal
	for _, s := range list {
		p, err := policy.Prefix(s)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", s, err)
		}
		out = append(out, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_RemoteIp{RemoteIp: &corev3.CidrRange{
			AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits())),
		}}})
	}
	return out, nil
}

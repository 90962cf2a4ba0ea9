package xds

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Tokens are looked at by two filters, both with Envoy's jwt_authn.
//
//	JWTName      before the Wasm filter: verifies whatever there is and lets everyone
//	             through. The claims are for the cohorts of the color policy.
//	RequireName  behind it: answers 401 where the rule that takes the request wants a
//	             token and there is none that is good.
//
// One filter for both lost. Which rule takes a request is known only when it has its
// group: the route that is chosen before that is another, and where the policy says closed
// it is none at all, so a rule's word would be passed over. To choose routes by the
// metadata of the first filter (a route of its own that answers 401) lost as well: Envoy
// decides on WebSockets by the route that is chosen first. A token is verified twice by
// that, once in truth: each filter keeps the last thousand.
//
// Keys are in the configuration (local_jwks); the control plane asks providers for them
// (controlplane/source). Envoy's own remote_jwks lost: it forgets keys with each change of
// the filter, of whichever provider, and with each start, so that one that is away then
// locks its users out; it has requests wait for the first answer; and each edge would need
// the way, the names and the authorities to reach each provider.

// Filters that verify tokens, and their ECDS resources.
const (
	JWTName     = "jwt"
	RequireName = "jwt-require"
)

// SessionCookie carries a session's token from browsers.
const SessionCookie = "tracegate_session"

const (
	jwtURL = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"

	sessionSkew  = 5  // seconds; the same clock, or nearly
	providerSkew = 30 // seconds, of somebody else's
	jwtCacheSize = 1000
)

// jwtSource is what the filters are made from.
type jwtSource struct {
	session   string // JWKS; empty: there are no sessions
	providers []policy.JWTProvider
	required  []string // requirements of rules, for the second filter only
}

// verify hands verified claims to the next filter and lets everyone through: who may do
// what is core's business, and that of [require]. The token itself is passed on for that.
// The first that verifies gives the claims, the product's own session before all others.
func verify(s jwtSource) *jwtv3.JwtAuthentication {
	all := s.all()
	maps.DeleteFunc(all, func(_ string, p *jwtv3.JwtProvider) bool { return p.GetLocalJwks() == nil })
	if len(all) == 0 {
		return &jwtv3.JwtAuthentication{}
	}
	for _, p := range all {
		p.ForwardPayloadHeader = semconv.HeaderClaims
		p.PayloadInMetadata = claimsMetadata // for limits per user
	}
	var either []*jwtv3.JwtRequirement
	for _, name := range s.names() {
		if all[name] != nil {
			either = append(either, provider(name))
		}
	}
	either = append(either, &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_AllowMissingOrFailed{AllowMissingOrFailed: &emptypb.Empty{}}})
	return &jwtv3.JwtAuthentication{
		Providers: all,
		Rules: []*jwtv3.RequirementRule{{
			Match:           &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			RequirementType: &jwtv3.RequirementRule_Requires{Requires: anyOfThem(either)},
		}},
	}
}

// require does nothing but what the route of a rule tells it to. It knows each provider
// alone beside what rules require now, and answers 403 to a route that requires what it
// does not know: for the moment between the two, where they change together, and where a
// provider is gone, as of a rule that stands in for one in quarantine.
func require(s jwtSource) *jwtv3.JwtAuthentication {
	out := &jwtv3.JwtAuthentication{StatPrefix: RequireName, Providers: s.all(), RequirementMap: map[string]*jwtv3.JwtRequirement{}}
	for _, name := range slices.Concat(s.names(), s.required) {
		if names, _ := providersOf(name); !slices.ContainsFunc(names, func(n string) bool { return out.GetProviders()[n] == nil }) {
			out.RequirementMap[name] = requirement(name)
		}
	}
	return out
}

// requireFilter is fail-safe where its configuration does not come: Envoy answers 403 to
// what a rule requires a token for, since it knows no such requirement.
func requireFilter() *hcmv3.HttpFilter {
	f := discovered(RequireName, jwtURL)
	f.GetConfigDiscovery().DefaultConfig = mustPack(&jwtv3.JwtAuthentication{StatPrefix: RequireName})
	f.GetConfigDiscovery().TypeUrls = []string{jwtURL}
	return f
}

// Names of requirements are those of providers, any of which will do, and a mark where
// none is needed. No provider has such a name.
const (
	requirementOr       = ","
	requirementOptional = "?"
)

func requirementName(r *policy.RuleJWT) string {
	name := strings.Join(r.Require, requirementOr)
	if r.AllowMissing {
		name += requirementOptional
	}
	return name
}

// providersOf takes such a name apart.
func providersOf(requirement string) (names []string, optional bool) {
	all, optional := strings.CutSuffix(requirement, requirementOptional)
	return strings.Split(all, requirementOr), optional
}

func requirement(name string) *jwtv3.JwtRequirement {
	names, optional := providersOf(name)
	var either []*jwtv3.JwtRequirement
	for _, n := range names {
		either = append(either, provider(n))
	}
	if optional {
		either = append(either, &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_AllowMissing{AllowMissing: &emptypb.Empty{}}})
	}
	if len(either) == 1 {
		return either[0]
	}
	return anyOfThem(either)
}

func provider(name string) *jwtv3.JwtRequirement {
	return &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: name}}
}

func anyOfThem(all []*jwtv3.JwtRequirement) *jwtv3.JwtRequirement {
	return &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: &jwtv3.JwtRequirementOrList{Requirements: all}}}
}

func requireToken(r *policy.RuleJWT) *jwtv3.PerRouteConfig {
	return &jwtv3.PerRouteConfig{RequirementSpecifier: &jwtv3.PerRouteConfig_RequirementName{RequirementName: requirementName(r)}}
}

// requirements of rules, sorted.
func requirements(services []plan.Service) []string {
	found := map[string]bool{}
	for _, s := range services {
		for i := range s.Rules { // thousands; they are large
			if r := s.Rules[i].JWT; r != nil {
				found[requirementName(r)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// names of all providers, in the order in which they are tried.
func (s jwtSource) names() []string {
	out := []string{policy.SessionProvider}
	for _, p := range s.providers {
		out = append(out, p.Name)
	}
	return out
}

func (s jwtSource) all() map[string]*jwtv3.JwtProvider {
	session := verifier(s.session, sessionSkew)
	session.FromHeaders = []*jwtv3.JwtHeader{{Name: "Authorization", ValuePrefix: "Bearer "}}
	session.FromCookies = []string{SessionCookie}
	out := map[string]*jwtv3.JwtProvider{policy.SessionProvider: session}
	for _, j := range s.providers {
		p := verifier(j.JWKS, providerSkew)
		p.Issuer, p.Audiences = j.Issuer, j.Audiences
		p.FromParams, p.FromCookies = j.FromParams, j.FromCookies
		for _, h := range j.FromHeaders {
			p.FromHeaders = append(p.FromHeaders, &jwtv3.JwtHeader{Name: h.Name, ValuePrefix: h.Prefix})
		}
		out[j.Name] = p
	}
	return out
}

// verifier has the keys, or says that they are elsewhere where there are none: Envoy takes
// no empty set, and answers 401 where it cannot get one.
func verifier(jwks string, skew uint32) *jwtv3.JwtProvider {
	out := &jwtv3.JwtProvider{
		JwksSourceSpecifier: &jwtv3.JwtProvider_LocalJwks{LocalJwks: inline(jwks)},
		RequireExpiration:   true,
		Forward:             true,
		ClockSkewSeconds:    skew,
		JwtCacheConfig:      &jwtv3.JwtCacheConfig{JwtCacheSize: jwtCacheSize, JwtMaxTokenSize: 4096},
	}
	if jwks == "" {
		out.JwksSourceSpecifier = &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: &jwtv3.RemoteJwks{HttpUri: &corev3.HttpUri{
			Uri:              "https://" + noHost,
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: noHost}, // there is none
			Timeout:          durationpb.New(time.Second),
		}}}
	}
	return out
}

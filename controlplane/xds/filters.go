package xds

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/plan"
)

// Filters that do nothing but what the route of a rule tells them to. They stand
// in every listener, because one that came with a rule would drain it.
const (
	corsFilter      = "envoy.filters.http.cors"
	faultFilter     = "envoy.filters.http.fault"
	rateLimitFilter = "envoy.filters.http.local_ratelimit"
	bufferFilter    = "envoy.filters.http.buffer"
)

// steered are these filters without a route's word. Envoy asks for that word when a
// request passes, which is after the Wasm filter had the route chosen anew.
//
// The buffer filter has no configuration that does nothing, so it is disabled; that
// is decided before any filter runs, by the first choice of a route. So where a
// rule wants it at all, [routes] puts it in for all requests, and says there that
// it does nothing, which counts as a route's own word does.
func steered() []*hcmv3.HttpFilter {
	typed := func(m validated) *hcmv3.HttpFilter_TypedConfig {
		return &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustPack(m)}
	}
	return []*hcmv3.HttpFilter{
		{Name: corsFilter, ConfigType: typed(&corsv3.Cors{})},
		{Name: rbacFilter, ConfigType: typed(&rbacv3.RBAC{})},
		requireFilter(),                      // behind CORS: a preflight has no token
		discovered(RateLimitName, globalURL), // whose service's address may change
		{Name: faultFilter, ConfigType: typed(&faultv3.HTTPFault{})},
		{Name: rateLimitFilter, ConfigType: typed(&ratelimitv3.LocalRateLimit{StatPrefix: ListenerName})},
		{Name: bufferFilter, Disabled: true, ConfigType: typed(&bufferv3.Buffer{MaxRequestBytes: wrapperspb.UInt32(maxBuffered)})},
	}
}

const maxBuffered = 16 << 20

// idleBuffer keeps the buffer filter out of what no rule wants it for.
func idleBuffer() map[string]*anypb.Any {
	return map[string]*anypb.Any{bufferFilter: mustPack(&bufferv3.BufferPerRoute{
		Override: &bufferv3.BufferPerRoute_Disabled{Disabled: true},
	})}
}

// ruleFilters is what a rule tells the filters.
func ruleFilters(r plan.Rule) (map[string]*anypb.Any, error) {
	out := map[string]*anypb.Any{}
	tell := func(filter string, m validated) error {
		if err := m.ValidateAll(); err != nil {
			return fmt.Errorf("validate %s: %w", filter, err)
		}
		config, err := packed(m)
		if err != nil {
			return fmt.Errorf("marshal %s: %w", filter, err)
		}
		out[filter] = config
		return nil
	}
	if r.CORS != nil {
		if err := tell(corsFilter, cors(r.CORS)); err != nil {
			return nil, err
		}
	}
	if r.Addresses != nil {
		rule, err := addressRule(r.Addresses)
		if err != nil {
			return nil, err
		}
		if err := tell(rbacFilter, rule); err != nil {
			return nil, err
		}
	}
	if r.JWT != nil {
		if err := tell(RequireName, requireToken(r.JWT)); err != nil {
			return nil, err
		}
	}
	if r.Fault != nil {
		if err := tell(faultFilter, fault(r.Fault)); err != nil {
			return nil, err
		}
	}
	if r.RateLimit != nil {
		if err := tell(rateLimitFilter, rateLimit(r.RateLimit)); err != nil {
			return nil, err
		}
	}
	if r.MaxRequestBytes > 0 {
		if err := tell(bufferFilter, &bufferv3.BufferPerRoute{Override: &bufferv3.BufferPerRoute_Buffer{
			Buffer: &bufferv3.Buffer{MaxRequestBytes: wrapperspb.UInt32(r.MaxRequestBytes)},
		}}); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

func cors(c *plan.CORS) *corsv3.CorsPolicy {
	out := &corsv3.CorsPolicy{
		AllowMethods:  strings.Join(c.Methods, ", "),
		AllowHeaders:  strings.Join(c.Headers, ", "),
		ExposeHeaders: strings.Join(c.ExposeHeaders, ", "),
		// A preflight of another origin is answered, without permission, and not sent on.
		ForwardNotMatchingPreflights: wrapperspb.Bool(false),
	}
	if c.MaxAge > 0 {
		out.MaxAge = strconv.FormatInt(int64(c.MaxAge/time.Second), 10)
	}
	if c.Credentials {
		out.AllowCredentials = wrapperspb.Bool(true)
	}
	for _, o := range c.Origins {
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, origin(o))
	}
	return out
}

func origin(o string) *matcherv3.StringMatcher {
	scheme, suffix, wild := strings.Cut(o, "://*.")
	switch {
	case o == "*":
		return regex(".*")
	case wild:
		return regex(scheme + `://[a-z0-9_.-]+\.` + regexp.QuoteMeta(suffix))
	default:
		return exact(o)
	}
}

func fault(f *plan.Fault) *faultv3.HTTPFault {
	out := &faultv3.HTTPFault{}
	if d := f.Delay; d != nil {
		out.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(d.Duration)},
			Percentage:         fraction(d.Percent),
		}
	}
	if a := f.Abort; a != nil {
		out.Abort = &faultv3.FaultAbort{ErrorType: &faultv3.FaultAbort_HttpStatus{HttpStatus: a.Status}, Percentage: fraction(a.Percent)}
	}
	return out
}

func rateLimit(l *plan.RateLimit) *ratelimitv3.LocalRateLimit {
	always := &corev3.RuntimeFractionalPercent{DefaultValue: fraction(100)}
	return &ratelimitv3.LocalRateLimit{
		StatPrefix: ListenerName,
		Status:     &typev3.HttpStatus{Code: typev3.StatusCode(http.StatusTooManyRequests)},
		TokenBucket: &typev3.TokenBucket{
			MaxTokens:     l.Burst,
			TokensPerFill: wrapperspb.UInt32(l.RequestsPerSecond),
			FillInterval:  durationpb.New(time.Second),
		},
		FilterEnabled:  always,
		FilterEnforced: always,
	}
}

// shed limits groups, whatever they ask for, on all routes whose rule has no rate limit of
// its own: Envoy takes the most specific word only. Who is not limited has a bucket that
// does not run dry.
func shed(groups []plan.Shed) *ratelimitv3.LocalRateLimit {
	bucket := func(tokens uint32) *typev3.TokenBucket {
		return &typev3.TokenBucket{MaxTokens: tokens, TokensPerFill: wrapperspb.UInt32(tokens), FillInterval: durationpb.New(time.Second)}
	}
	out := rateLimit(&plan.RateLimit{RequestsPerSecond: math.MaxUint32, Burst: math.MaxUint32})
	out.AlwaysConsumeDefaultTokenBucket = wrapperspb.Bool(false)
	out.RateLimits = []*routev3.RateLimit{{Actions: []*routev3.RateLimit_Action{limitPer("group")}}}
	for _, s := range groups {
		out.Descriptors = append(out.Descriptors, &commonratelimitv3.LocalRateLimitDescriptor{
			Entries:     []*commonratelimitv3.RateLimitDescriptor_Entry{{Key: "group", Value: string(s.Group)}},
			TokenBucket: bucket(s.Requests),
		})
	}
	return out
}

func fraction(percent float64) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: uint32(percent*10_000 + 0.5), Denominator: typev3.FractionalPercent_MILLION}
}

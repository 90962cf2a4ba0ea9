package xds

import (
	"fmt"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/observability/semconv"
)

// entrance is what a listener is made from. A listener that changes drains, and its
// WebSockets with it; so nothing that changes in operation may stand in here: routes
// come by RDS, filters' configuration by ECDS, certificates by SDS. Where only filter
// chains differ, Envoy drains only those that are gone.
type entrance struct {
	name, listen string
	redirect     uint32 // port of TLS that everything is sent to; 0: requests are served
	hops         uint32 // proxies before it
	quic         bool
	minVersion   string
	chains       []chain // by certificate; nil: not encrypted
}

func (e entrance) render() (*listenerv3.Listener, error) {
	addr, err := address(e.listen)
	if err != nil {
		return nil, err
	}
	hcm, err := packed(e.connectionManager())
	if err != nil {
		return nil, fmt.Errorf("marshal connection manager: %w", err)
	}
	l := &listenerv3.Listener{
		Name:                                 e.name,
		StatPrefix:                           e.name,
		Address:                              addr,
		PerConnectionBufferLimitBytes:        wrapperspb.UInt32(bufferLimit),
		TrafficDirection:                     corev3.TrafficDirection_INBOUND,
		MaxConnectionsToAcceptPerSocketEvent: wrapperspb.UInt32(1),
	}
	filters := []*listenerv3.Filter{{
		Name:       hcmFilter,
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: hcm},
	}}
	if e.chains == nil {
		l.FilterChains = []*listenerv3.FilterChain{{Filters: filters}}
		return l, nil
	}
	if err := e.encrypt(l, filters); err != nil {
		return nil, err
	}
	return l, nil
}

const hcmFilter = "envoy.filters.network.http_connection_manager"

// connectionManager follows Envoy's guide "configuring Envoy as an edge proxy".
// It has no tracing: Envoy's tracer overwrites the colored traceparent, so edge
// spans are made from the access log instead.
func (e entrance) connectionManager() *hcmv3.HttpConnectionManager {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: ListenerName,
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource:    ads(),
			RouteConfigName: RoutesName,
		}},
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{dropClaims()},
		HttpFilters:                   e.httpFilters(),
		AccessLog:                     accessLogs(),
		LocalReplyConfig:              localReplies(),

		// Who is the client: the peer, not what it says about itself. No peer counts
		// as internal, so its x-envoy-* headers are dropped. The list must name
		// something: Envoy takes an empty one for "private and loopback".
		UseRemoteAddress:  wrapperspb.Bool(true),
		XffNumTrustedHops: e.hops,
		InternalAddressConfig: &hcmv3.HttpConnectionManager_InternalAddressConfig{
			CidrRanges: []*corev3.CidrRange{{AddressPrefix: "0.0.0.0", PrefixLen: wrapperspb.UInt32(32)}},
		},

		// One spelling of a path for the filter, the routes and the upstream.
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT,

		ServerName:                 "tracegate",
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_OVERWRITE,
		MaxRequestHeadersKb:        wrapperspb.UInt32(32),

		// Routes for WebSockets override what must not end them.
		RequestHeadersTimeout: durationpb.New(10 * time.Second),
		RequestTimeout:        durationpb.New(time.Minute), // ends when the response begins
		StreamIdleTimeout:     durationpb.New(5 * time.Minute),
		DrainTimeout:          durationpb.New(5 * time.Second),
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{
			UpgradeType: "websocket", Enabled: wrapperspb.Bool(false),
		}},
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  durationpb.New(time.Hour),
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
			MaxHeadersCount:              wrapperspb.UInt32(100),
		},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams:        wrapperspb.UInt32(maxStreams),
			InitialStreamWindowSize:     wrapperspb.UInt32(streamWindow),
			InitialConnectionWindowSize: wrapperspb.UInt32(connectionWindow),
		},
	}
	if e.redirect != 0 {
		m.RouteSpecifier = redirectAll(e.redirect)
		m.StatPrefix, m.AccessLog = RedirectName, nil
	}
	if e.quic {
		m.CodecType = hcmv3.HttpConnectionManager_HTTP3
		m.Http3ProtocolOptions = &corev3.Http3ProtocolOptions{QuicProtocolOptions: quicOptions()}
	}
	return m
}

// Bounds of what one connection of HTTP/2 or HTTP/3 may have open and in flight.
const (
	maxStreams       = 100
	streamWindow     = 64 << 10
	connectionWindow = 1 << 20
)

// dropClaims removes what clients send under our own header names, before any
// filter and before the route is chosen.
func dropClaims() *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name: "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: mustPack(&earlyv3.HeaderMutation{Mutations: []*mutationv3.HeaderMutation{{
			Action: &mutationv3.HeaderMutation_RemoveOnMatch_{RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{
				KeyMatcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: semconv.HeaderPrefix}},
			}},
		}}}),
	}
}

func (e entrance) httpFilters() []*hcmv3.HttpFilter {
	router := &hcmv3.HttpFilter{
		Name:       "envoy.filters.http.router",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustPack(&routerv3.Router{SuppressEnvoyHeaders: true})},
	}
	if e.redirect != 0 {
		return []*hcmv3.HttpFilter{router}
	}
	var out []*hcmv3.HttpFilter
	if e.chains != nil {
		out = append(out, discovered(TLSHeadersName, mutationURL)) // first: on local replies of the others as well
	}
	out = append(out,
		discovered(JWTName, jwtURL), // the filter behind it reads the claims it verified
		userFilter(),
		discovered(FilterName, wasmURL), // colors the request; the router matches what it wrote
	)
	out = append(out, steered()...)
	return append(out, grpcWeb(), router) // what came as gRPC-Web is gRPC for the router only
}

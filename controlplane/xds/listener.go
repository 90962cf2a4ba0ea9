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

// listener is the one clients connect to. A listener that changes drains, and its
// WebSockets with it; so nothing that changes in operation may stand in here:
// routes come by RDS, both filters' configuration by ECDS.
func listener(listen string) (*listenerv3.Listener, error) {
	addr, err := address(listen)
	if err != nil {
		return nil, err
	}
	hcm, err := packed(connectionManager())
	if err != nil {
		return nil, fmt.Errorf("marshal connection manager: %w", err)
	}
	return &listenerv3.Listener{
		Name:                                 ListenerName,
		StatPrefix:                           ListenerName,
		Address:                              addr,
		PerConnectionBufferLimitBytes:        wrapperspb.UInt32(bufferLimit),
		TrafficDirection:                     corev3.TrafficDirection_INBOUND,
		MaxConnectionsToAcceptPerSocketEvent: wrapperspb.UInt32(1),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: hcm},
		}}}},
	}, nil
}

// connectionManager follows Envoy's guide "configuring Envoy as an edge proxy".
// It has no tracing: Envoy's tracer overwrites the colored traceparent, so edge
// spans are made from the access log instead.
func connectionManager() *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix: ListenerName,
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource:    ads(),
			RouteConfigName: RoutesName,
		}},
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{dropClaims()},
		HttpFilters:                   httpFilters(),
		AccessLog:                     accessLogs(),
		LocalReplyConfig:              localReplies(),

		// Who is the client: the peer, not what it says about itself. No peer counts
		// as internal, so its x-envoy-* headers are dropped. The list must name
		// something: Envoy takes an empty one for "private and loopback".
		UseRemoteAddress: wrapperspb.Bool(true),
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
			MaxConcurrentStreams:        wrapperspb.UInt32(100),
			InitialStreamWindowSize:     wrapperspb.UInt32(64 << 10),
			InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
		},
	}
}

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

func httpFilters() []*hcmv3.HttpFilter {
	out := []*hcmv3.HttpFilter{
		discovered(JWTName, jwtURL),     // first: the filter behind it reads the claims it verified
		discovered(FilterName, wasmURL), // colors the request; the router matches what it wrote
	}
	out = append(out, steered()...)
	return append(out, &hcmv3.HttpFilter{
		Name:       "envoy.filters.http.router",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustPack(&routerv3.Router{SuppressEnvoyHeaders: true})},
	})
}

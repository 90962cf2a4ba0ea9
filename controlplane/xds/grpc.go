package xds

import (
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// grpcWeb lets browsers call gRPC services. It looks at the content type and leaves
// every other request alone.
func grpcWeb() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{
		Name:       "envoy.filters.http.grpc_web",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustPack(&grpcwebv3.GrpcWeb{})},
	}
}

// streamed makes a route fit for gRPC. Its timeout would be counted from the end of the
// request, which a stream of the client's does not have; so the client's own deadline
// counts, bounded by the timeout where there is one.
func streamed(a *routev3.RouteAction) {
	most := a.GetTimeout()
	a.Timeout, a.IdleTimeout = durationpb.New(0), durationpb.New(time.Hour)
	a.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{GrpcTimeoutHeaderMax: most}
	if most.AsDuration() > 0 {
		a.MaxStreamDuration.MaxStreamDuration = most
	}
}

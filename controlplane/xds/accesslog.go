package xds

import (
	"net/http"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	statsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stats/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/observability/semconv"
)

// AccessLogName is the log_name of edge access logs; observability/ingest makes
// spans of these records.
const AccessLogName = "edge_access"

// accessLogAttributes are the record's attributes. All values are text, and "-"
// where Envoy has none.
var accessLogAttributes = [][2]string{
	{"traceparent", "%REQ(TRACEPARENT)%"},
	{semconv.Group, "%REQ(X-TRAFFIC-GROUP)%"},
	{"baggage", "%REQ(BAGGAGE)%"},
	{"http.request.method", "%REQ(:METHOD)%"},
	{"url.path", "%PATH(NQ)%"},
	{"http.route", "%ROUTE_NAME%"},
	{"http.response.status_code", "%RESPONSE_CODE%"},
	{"server.address", "%REQ(:AUTHORITY)%"},
	{"client.address", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
	{"network.protocol.name", "%PROTOCOL%"},
	{"upstream.cluster", "%UPSTREAM_CLUSTER_RAW%"},
	{"upstream.host", "%UPSTREAM_HOST%"},
	{"upstream.attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"},
	{semconv.Pool, "%RESP(X-TRAFFIC-POOL)%"},
	{"response.flags", "%RESPONSE_FLAGS%"},
	{"start_time", "%START_TIME(%s.%9f)%"},
	{"duration_us", "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"},
	{"duration_ms", "%DURATION%"}, // also there when the client left before the response ended
	{"request.bytes", "%BYTES_RECEIVED%"},
	{"response.bytes", "%BYTES_SENT%"},
	{"upgrade", "%REQ(UPGRADE)%"},
}

func accessLogs() []*accesslogv3.AccessLog {
	attributes := &commonv1.KeyValueList{}
	for _, kv := range accessLogAttributes {
		attributes.Values = append(attributes.Values, &commonv1.KeyValue{Key: kv[0], Value: text(kv[1])})
	}
	return []*accesslogv3.AccessLog{uncoloredLog(), {
		Name: "envoy.access_loggers.open_telemetry",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: mustPack(&otelv3.OpenTelemetryAccessLogConfig{
			LogName: AccessLogName,
			GrpcService: &corev3.GrpcService{
				TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: ObserveName}},
				Timeout:         durationpb.New(5 * time.Second),
			},
			BufferFlushInterval: durationpb.New(100 * time.Millisecond),
			BufferSizeBytes:     wrapperspb.UInt32(64 << 10),
			ResourceAttributes:  &commonv1.KeyValueList{Values: []*commonv1.KeyValue{{Key: "service.name", Value: text(semconv.ServiceEdge)}}},
			Attributes:          attributes,
			StatPrefix:          ListenerName,
		})},
	}}
}

// UncoloredStat is a regular expression for Envoy's counter of requests that an
// upstream served without a group, because the filter is missing or its virtual
// machine died.
const UncoloredStat = `^` + ListenerName + `\.uncolored$`

// uncoloredLog counts them. (A virtual cluster of each virtual host lost: Envoy makes
// its counters again with each change of routes, which took most of the time.)
func uncoloredLog() *accesslogv3.AccessLog {
	and := func(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
		return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{Filters: filters}}}
	}
	without := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{
		HeaderFilter: &accesslogv3.HeaderFilter{Header: isUncolored()},
	}}
	served := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
		Name:       "envoy.access_loggers.extension_filters.cel",
		ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: mustPack(&celv3.ExpressionFilter{Expression: "has(upstream.address)"})},
	}}}
	return &accesslogv3.AccessLog{
		Name:   "envoy.access_loggers.stats",
		Filter: and(without, served), // in this order: few requests get as far as the second
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: mustPack(&statsv3.Config{
			StatsScope: &typev3.Scope{Prefix: ListenerName},
			Counters:   []*statsv3.Config_Counter{{Stat: &statsv3.Config_Stat{Name: "uncolored"}, ValueFixed: wrapperspb.UInt64(1)}},
		})},
	}
}

func text(s string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}
}

// localReplies gives Envoy's own answers the shape of core's errors.
func localReplies() *hcmv3.LocalReplyConfig {
	return &hcmv3.LocalReplyConfig{
		Mappers: []*hcmv3.ResponseMapper{
			reply(http.StatusBadRequest, http.StatusBadRequest, protocol.CodeInvalidArgument, false),
			reply(http.StatusForbidden, http.StatusForbidden, protocol.CodePermissionDenied, false),
			reply(http.StatusNotFound, http.StatusNotFound, protocol.CodeNotFound, false),
			reply(http.StatusRequestEntityTooLarge, http.StatusRequestEntityTooLarge, protocol.CodeTooLarge, false),
			reply(http.StatusTooManyRequests, http.StatusTooManyRequests, protocol.CodeRateLimited, true),
			reply(http.StatusRequestHeaderFieldsTooLarge, http.StatusRequestHeaderFieldsTooLarge, protocol.CodeTooLarge, false),
			reply(http.StatusInternalServerError, 599, protocol.CodeUnavailable, true),
		},
	}
}

func reply(from, to uint32, code protocol.Code, temporary bool) *hcmv3.ResponseMapper {
	return &hcmv3.ResponseMapper{
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{
			Filters: []*accesslogv3.AccessLogFilter{status(accesslogv3.ComparisonFilter_GE, from), status(accesslogv3.ComparisonFilter_LE, to)},
		}}},
		BodyFormatOverride: &corev3.SubstitutionFormatString{
			ContentType: "application/json",
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: map[string]*structpb.Value{
				"code":      structpb.NewStringValue(string(code)),
				"message":   structpb.NewStringValue("%LOCAL_REPLY_BODY%"),
				"temporary": structpb.NewBoolValue(temporary),
			}}},
		},
	}
}

func status(op accesslogv3.ComparisonFilter_Op, code uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
			Op: op,
			Value: &corev3.RuntimeUInt32{
				DefaultValue: code,
				RuntimeKey:   "tracegate.local_reply", // required by Envoy, never set
			},
		}},
	}}
}

// Package keda answers KEDA as an external scaler (gRPC, push too) with what was measured of a
// service, a pool or a traffic group, for clusters whose autoscalers KEDA makes:
//
//	triggers:
//	  - type: external-push
//	    metadata: {scalerAddress: "tracegate-keda.tracegate.svc:9444", service: chat, pool: baseline, group: acme, qpsPerPod: "200"}
//	  - type: external
//	    metricType: Value
//	    metadata: {scalerAddress: "tracegate-keda.tracegate.svc:9444", service: chat, pool: baseline, p95Milliseconds: "250"}
//
// A trigger has one of qpsPerPod, errorFreeQPSPerPod and p95Milliseconds, which are what a
// MicroService's autoscaling has. The last needs metricType Value: with KEDA's default, AverageValue,
// the latency would be divided by the number of pods, and KEDA does not tell a scaler which it is.
// Something is active while it gets requests at all, also if all of them fail.
//
// Where telemetry is stale the answer is an error, never zero: KEDA keeps what runs, or does
// what the ScaledObject's fallback says.
//
// The protocol is four calls of seven messages, which stand in protocol.go. KEDA's own
// package lost: its module is all of KEDA, four hundred modules. A test calls with KEDA's
// own client.
package keda

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/metricsapi"
)

// Scaler answers. Who may call is the server's to say.
type Scaler struct {
	Last func() metricsapi.Snapshot
	// Group finds the id of a TrafficGroup.
	Group      func(ctx context.Context, namespace, name string) (group.ID, bool)
	StaleAfter time.Duration
	Now        func() time.Time
}

// lookEvery is how often a stream looks whether something has become active.
const lookEvery = 250 * time.Millisecond

// The keys of a trigger's metadata that are ours, and those that KEDA reads itself.
const (
	keyService = "service"
	keyPool    = "pool"
	keyGroup   = "group"
)

// targets are the keys of which a trigger has one, and what each is a target of.
var targets = map[string]struct {
	metric string
	most   float64
}{
	"qpsPerPod":          {metricsapi.QPS, 1e6},
	"errorFreeQPSPerPod": {metricsapi.ErrorFree, 1e6},
	"p95Milliseconds":    {metricsapi.P95, 3.6e6},
}

var kedaKeys = []string{"scalerAddress", "metricType", "caCert", "tlsCertFile", "tlsClientCert", "tlsClientKey", "unsafeSsl", "enableTLS"}

// Register adds the scaler to a server.
func (s Scaler) Register(server grpc.ServiceRegistrar) error {
	p, err := newProtocol()
	if err != nil {
		return err
	}
	c := calls{s, p}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName, HandlerType: (*any)(nil), Metadata: p.file.Path(),
		Methods: []grpc.MethodDesc{
			{MethodName: "IsActive", Handler: c.unary("IsActive", "ScaledObjectRef", c.isActive)},
			{MethodName: "GetMetricSpec", Handler: c.unary("GetMetricSpec", "ScaledObjectRef", c.metricSpec)},
			{MethodName: "GetMetrics", Handler: c.unary("GetMetrics", "GetMetricsRequest", c.metrics)},
		},
		Streams: []grpc.StreamDesc{{StreamName: "StreamIsActive", ServerStreams: true, Handler: c.streamIsActive}},
	}, s)
	return nil
}

type calls struct {
	Scaler
	protocol
}

type call func(ctx context.Context, request protoreflect.Message) (*dynamicpb.Message, error)

func (c calls) unary(method string, request protoreflect.Name, do call) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
		in := c.message(request)
		if err := decode(in); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, in any) (any, error) { return do(ctx, in.(*dynamicpb.Message)) }
		if around == nil {
			return handle(ctx, in)
		}
		return around(ctx, in, &grpc.UnaryServerInfo{Server: c.Scaler, FullMethod: "/" + serviceName + "/" + method}, handle)
	}
}

// trigger is what a ScaledObject asks for.
type trigger struct {
	of     metricsapi.Selection
	metric string
	target float64
}

// trigger reads a ScaledObjectRef.
func (c calls) trigger(ctx context.Context, ref protoreflect.Message) (t trigger, err error) {
	metadata := ref.Get(ref.Descriptor().Fields().ByName("scalerMetadata")).Map()
	namespace := text(ref, "namespace")
	metadata.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		switch key, value := k.String(), v.String(); key {
		case keyService:
			t.of.Service = value
		case keyPool:
			t.of.Pool = value
		case keyGroup:
			id, known := c.Group(ctx, namespace, value)
			if !known {
				err = status.Errorf(codes.NotFound, "group: there is no TrafficGroup %q in namespace %s", value, namespace)
			}
			t.of.Group = id
		default:
			err = t.aim(key, value)
		}
		return err == nil
	})
	switch {
	case err != nil:
		return trigger{}, err
	case t.of == metricsapi.Selection{}:
		return trigger{}, status.Error(codes.InvalidArgument, "service: missing, and pool and group are as well")
	case t.metric == "":
		return trigger{}, status.Error(codes.InvalidArgument, "qpsPerPod: missing, and errorFreeQPSPerPod and p95Milliseconds are as well")
	}
	return t, nil
}

// aim takes a key that may be one of targets.
func (t *trigger) aim(key, value string) error {
	target, ours := targets[key]
	switch {
	case !ours && slices.Contains(kedaKeys, key):
		return nil
	case !ours:
		return status.Errorf(codes.InvalidArgument, "%s: unknown, there are service, pool, group, qpsPerPod, errorFreeQPSPerPod and p95Milliseconds", key)
	case t.metric != "":
		return status.Errorf(codes.InvalidArgument, "%s: a trigger has one target, this one has %s too; use two triggers", key, t.metric)
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || !(n >= 1 && n <= target.most) {
		return status.Errorf(codes.InvalidArgument, "%s: %q is not a number from 1 to %.0f", key, value, target.most)
	}
	t.metric, t.target = target.metric, n
	return nil
}

// value of a metric in its own unit.
func (c calls) value(metric string, of metricsapi.Selection) (float64, error) {
	v, err := c.Last().Value(metric, of, c.Now(), c.StaleAfter)
	if errors.Is(err, metricsapi.ErrStale) {
		return 0, status.Error(codes.Unavailable, err.Error())
	}
	return float64(v.Milli) / 1000, err
}

func (c calls) isActive(ctx context.Context, ref protoreflect.Message) (*dynamicpb.Message, error) {
	t, err := c.trigger(ctx, ref)
	if err != nil {
		return nil, err
	}
	qps, err := c.value(metricsapi.QPS, t.of)
	if err != nil {
		return nil, err
	}
	return c.active(qps > 0), nil
}

func (c calls) active(is bool) *dynamicpb.Message {
	return c.set("IsActiveResponse", map[protoreflect.Name]any{"result": is})
}

// streamIsActive says it at first, and whenever it changes; nothing while nobody knows.
func (c calls) streamIsActive(_ any, stream grpc.ServerStream) error {
	ref := c.message("ScaledObjectRef")
	if err := stream.RecvMsg(ref); err != nil {
		return err
	}
	t, err := c.trigger(stream.Context(), ref)
	if err != nil {
		return err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var said *bool
	for {
		if qps, err := c.value(metricsapi.QPS, t.of); err == nil && (said == nil || *said != (qps > 0)) {
			said = new(qps > 0)
			if err := stream.SendMsg(c.active(*said)); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (c calls) metricSpec(ctx context.Context, ref protoreflect.Message) (*dynamicpb.Message, error) {
	t, err := c.trigger(ctx, ref)
	if err != nil {
		return nil, err
	}
	spec := c.set("MetricSpec", map[protoreflect.Name]any{"metricName": t.metric, "targetSize": int64(t.target), "targetSizeFloat": t.target})
	return c.set("GetMetricSpecResponse", map[protoreflect.Name]any{"metricSpecs": []*dynamicpb.Message{spec}}), nil
}

func (c calls) metrics(ctx context.Context, request protoreflect.Message) (*dynamicpb.Message, error) {
	t, err := c.trigger(ctx, request.Get(request.Descriptor().Fields().ByName("scaledObjectRef")).Message())
	if err != nil {
		return nil, err
	}
	if name := text(request, "metricName"); name != "" && name != t.metric {
		return nil, status.Errorf(codes.InvalidArgument, "metricName: %q is not %s", name, t.metric)
	}
	v, err := c.value(t.metric, t.of)
	if err != nil {
		return nil, err
	}
	value := c.set("MetricValue", map[protoreflect.Name]any{"metricName": t.metric, "metricValue": int64(v), "metricValueFloat": v})
	return c.set("GetMetricsResponse", map[protoreflect.Name]any{"metricValues": []*dynamicpb.Message{value}}), nil
}

package api

import (
	"context"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/protocol/wire"
	"github.com/tracegate/tracegate/core/session"
)

// newGRPC serves the API by gRPC, with health and reflection. It is an http.Handler of
// the one port, behind the same middleware as REST: what net/http does there for HTTP/2
// (limits, time-outs, shutdown) is then the same for all, at the cost of some speed that
// a server with its own listener would have.
func (s *server) newGRPC(api *service) *grpc.Server {
	out := grpc.NewServer(
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
		grpc.ChainUnaryInterceptor(s.answerUnary, s.admitUnary),
		grpc.ChainStreamInterceptor(s.answerStream, s.admitStream),
		grpc.MaxRecvMsgSize(session.MaxResume), // the largest that checkMessage lets pass; most may be of maxBody, which it refuses with our own error
	)
	api.attach(out)
	grpc_health_v1.RegisterHealthServer(out, health{healthy: s.deps.Healthy})
	reflection.Register(out)
	return out
}

// isGRPC says whether a request is a call of gRPC.
func isGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// serveGRPC names the route for the span, and takes the time-outs of requests away from
// streams, which have none.
func (s *server) serveGRPC(to http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.name(w)
		if _, ours := s.rules[r.URL.Path]; ours {
			r.Pattern = "POST " + r.URL.Path
		}
		if err := s.origins.Check(r); err != nil {
			http.Error(w, "request comes from another site", http.StatusForbidden)
			return
		}
		if streams[r.URL.Path] {
			conn := http.NewResponseController(w)
			_ = conn.SetReadDeadline(time.Time{}) // HTTP/2 has deadlines for each stream, so these do not fail
			_ = conn.SetWriteDeadline(time.Time{})
			var over last
			callOf(r.Context()).cut = func() { over.unless(func() { _ = conn.SetWriteDeadline(time.Now().Add(time.Second)) }) }
			defer over.set()
		}
		to.ServeHTTP(w, r)
	})
}

// last keeps calls from being made after something is over.
type last struct {
	mu   sync.Mutex
	over bool
}

func (l *last) set() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

func (l *last) unless(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		f()
	}
}

// answerUnary is the rim of gRPC: panics, metrics, and errors as a status.
func (s *server) answerUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
	defer s.answered(ctx, info.FullMethod, time.Now(), &err)
	return next(ctx, req)
}

func (s *server) answerStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer s.answered(stream.Context(), info.FullMethod, time.Now(), &err)
	return next(srv, stream)
}

// answered is deferred. Health and reflection answer for themselves.
func (s *server) answered(ctx context.Context, method string, start time.Time, err *error) {
	if p := recover(); p != nil {
		s.metrics.panics.Inc()
		s.deps.Log.Error("handler panicked", "panic", p, "path", method, "stack", string(debug.Stack()))
		*err = protocol.NewError(protocol.CodeInternal, "", "internal error")
	}
	if _, ours := s.rules[method]; !ours {
		return
	}
	code := "ok"
	if *err != nil {
		code = string(s.refuse(ctx, method, *err).Code)
		span := trace.SpanFromContext(ctx)
		span.SetAttributes(attribute.String("error.type", code))
		*err = statusOf(visible(*err))
		span.SetAttributes(attribute.Int("rpc.grpc.status_code", int(status.Code(*err))))
	}
	s.metrics.requests.WithLabelValues(method, code).Inc()
	if !streams[method] { // how long one lasts says nothing
		s.metrics.seconds.WithLabelValues(method).Observe(time.Since(start).Seconds())
	}
}

// refuse logs what a client may not see of an error, and returns what it may.
func (s *server) refuse(ctx context.Context, route string, err error) *protocol.Error {
	pe := visible(err)
	if pe.Code.Status() >= 500 && ctx.Err() == nil {
		span := trace.SpanFromContext(ctx)
		span.SetStatus(otelcodes.Error, err.Error())
		s.deps.Log.Warn("request", "route", route, "trace_id", span.SpanContext().TraceID(), "error", err)
	}
	return pe
}

// codec is the usual one, and passes on frames that are encoded already.
type codec struct{ encoding.CodecV2 }

// encoded is a frame as wire.AppendFrame has it.
type encoded []byte

var subscribeTag = mem.SliceBuffer{wire.SubscribeTag}

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if frame, ok := v.(encoded); ok {
		return mem.BufferSlice{subscribeTag, mem.SliceBuffer(frame)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// health answers load balancers. Watch is left out: clients take its absence for health
// and ask again.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	healthy func() bool
}

// Check implements grpc.health.v1.
func (h health) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	out := &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_NOT_SERVING}
	if h.healthy() {
		out.Status = grpc_health_v1.HealthCheckResponse_SERVING
	}
	return out, nil
}

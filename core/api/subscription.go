package api

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/tracegate/tracegate/core/account"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
	"github.com/tracegate/tracegate/core/session"
)

// streams are the operations that last, by full name.
var streams = map[string]bool{chatv1.SubscriptionService_Subscribe_FullMethodName: true}

func (s *service) Subscribe(in *chatv1.SubscribeRequest, stream grpc.ServerStreamingServer[chatv1.SubscribeResponse]) error {
	ctx := stream.Context()
	return s.deps.Sockets.Subscribe(ctx, s.who(ctx, caller(ctx)), wire.ResumeOf(in.GetResume()), &subscriber{stream: stream, call: callOf(ctx), began: func() { s.stillIn(ctx) }})
}

// opening gives a stream a span that ends with its first frame. Were it as long as the
// stream, it would count as a request that takes hours.
func (s *server) opening(next http.Handler) http.Handler {
	tracer := s.deps.Tracing.Tracer("github.com/tracegate/tracegate/core/api")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := s.deps.Propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		name := "POST " + r.URL.Path
		ctx, span := tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
			attribute.String("http.request.method", r.Method), attribute.String("http.route", r.URL.Path), attribute.String("url.path", r.URL.Path),
		))
		defer span.End()
		callOf(ctx).opened = func() { span.End() }
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// who is a connection's user and group.
func (s *server) who(ctx context.Context, id account.Identity) session.Who {
	return session.Who{
		User: id.User, Session: id.Session, Expires: id.SessionEnds, Group: s.traffic(ctx),
		Baggage: baggage.FromContext(ctx), Upgrade: trace.SpanContextFromContext(ctx), Edge: callOf(ctx).edge, Address: callOf(ctx).local,
	}
}

// subscriber is a stream as package session writes to it.
type subscriber struct {
	stream grpc.ServerStream
	call   *call
	began  func() // nil when it has been called
}

func (s *subscriber) Send(frame []byte) error {
	if s.began != nil {
		s.call.opened()
		s.began()
		s.began = nil
	}
	return s.stream.SendMsg(encoded(frame))
}

func (s *subscriber) Cut() { s.call.cut() }

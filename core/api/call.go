package api

import (
	"context"
	"net"
	"net/http"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
	"github.com/tracegate/tracegate/core/session"
	"github.com/tracegate/tracegate/observability/semconv"
)

// call is what is known of one call beside its request, whichever way it came: what its
// transport says of the caller, and what the interceptors have found out. It travels in
// the context; see callOf.
type call struct {
	address   string // the client's
	token     string // empty where there is none
	edge      string // the Envoy it came by; see semconv.HeaderEdge
	local     string // address of this process that it came to
	identity  account.Identity
	cut       func()             // ends a write that waits; of a stream, as is opened
	opened    func()             // ends the span
	refresh   string             // the refresh token of the cookie, of REST
	browser   bool               // REST, by a page
	secure    bool               // REST, by TLS
	setCookie func(*http.Cookie) // of REST, else nil
	status    int                // of an HTTP answer, where it is not the operation's usual one
	failed    error              // what the gateway is to answer
	refused   *protocol.Error    // what was wrong with the body, which the gateway would put into its own words
}

type callKey struct{}

func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// callOf is the call of a request's context; every handler and operation has one.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// caller is who calls, once admit has found it out.
func caller(ctx context.Context) account.Identity { return callOf(ctx).identity }

func localAddress(r *http.Request) string {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return a.String()
	}
	return ""
}

// called makes the call of a request.
func (s *server) called(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(withCall(r.Context(), &call{address: s.address(r), token: token(r), edge: r.Header.Get(semconv.HeaderEdge), local: localAddress(r)})))
	})
}

// rule is what the proto says of an operation.
type rule struct {
	public   bool
	bodiless bool // REST may leave the body out
	once     bool // what stays open: its token is not expected again soon
	status   int  // of an HTTP answer
	input    protoreflect.MessageDescriptor
}

// rules are those of all operations, by full name ("/package.Service/Method").
func rules() map[string]rule {
	out := map[string]rule{}
	eachMethod(func(m protoreflect.MethodDescriptor) {
		said, _ := proto.GetExtension(m.Options(), chatv1.E_Call).(*chatv1.Call)
		r := rule{public: said.GetPublic(), bodiless: said.GetBodiless(), status: int(said.GetStatus()), input: m.Input()}
		if r.status == 0 {
			r.status = http.StatusOK
			if m.Output().Fields().Len() == 0 {
				r.status = http.StatusNoContent
			}
		}
		out[fullName(m)] = r
	})
	return out
}

// eachMethod calls f for every operation of the API.
func eachMethod(f func(protoreflect.MethodDescriptor)) {
	protoregistry.GlobalFiles.RangeFilesByPackage(chatv1.File_tracegate_chat_v1_options_proto.Package(), func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for k := range methods.Len() {
				f(methods.Get(k))
			}
		}
		return true
	})
}

func fullName(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// admitUnary and admitStream are the one chain that all operations pass, whichever way
// they came: trouble on purpose, who calls, how often, and whether the request holds
// what the proto does not know.
func (s *server) admitUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	rule, ours := s.rules[info.FullMethod]
	if !ours { // health, reflection
		return next(ctx, req)
	}
	if err := s.trouble(ctx); err != nil {
		return nil, err
	}
	if err := s.admit(ctx, rule); err != nil {
		return nil, err
	}
	if err := checkMessage(req); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (s *server) admitStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	rule, ours := s.rules[info.FullMethod]
	if !ours {
		return next(srv, stream)
	}
	rule.once = true
	if err := s.admit(stream.Context(), rule); err != nil {
		return err
	}
	return next(srv, checkedStream{stream})
}

// checkedStream checks what comes in, as admitUnary does.
type checkedStream struct{ grpc.ServerStream }

func (s checkedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return checkMessage(m)
}

// checkMessage refuses what would be passed over, as a JSON body with it is refused, and
// what is larger than a JSON body may be; a subscription names conversations as the first
// frame of a WebSocket does.
func checkMessage(m any) error {
	req, ok := m.(proto.Message)
	if !ok {
		return nil
	}
	limit := maxBody
	if _, ok := m.(*chatv1.SubscribeRequest); ok {
		limit = session.MaxResume
	}
	if proto.Size(req) > limit {
		return tooLarge(limit)
	}
	if wire.Unknown(req) != 0 {
		return protocol.NewError(protocol.CodeInvalidArgument, "body", "the request has a field that is not known here")
	}
	return nil
}

// admit wants a valid token, where the operation is not for all, and keeps its user
// within the rate.
func (s *server) admit(ctx context.Context, rule rule) error {
	if rule.public {
		return nil
	}
	c := callOf(ctx)
	if c.token == "" {
		return protocol.NewError(protocol.CodeUnauthenticated, "", "log in first")
	}
	verify := s.deps.Accounts.Verify
	if rule.once {
		verify = s.deps.Accounts.VerifyOnce
	}
	id, err := verify(c.token)
	if err != nil {
		return err
	}
	c.identity = id
	return s.limit(s.user, "user", id.User.ID)
}

func traceID(ctx context.Context) string {
	return trace.SpanContextFromContext(ctx).TraceID().String()
}

// await waits for the one call of done, as long as the client does.
func await[T any](ctx context.Context, begin func(done func(T, error))) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	begin(func(v T, err error) { answers <- answer{v, err} })
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

const (
	defaultPage = 50
	maxPage     = 200
)

// limitOf is how long a page is at most.
func limitOf(limit *int32, usual, highest int) (int, error) {
	switch {
	case limit == nil:
		return usual, nil
	case *limit < 1:
		return 0, protocol.NewError(protocol.CodeInvalidArgument, "limit", "limit must be at least 1")
	default:
		return min(int(*limit), highest), nil
	}
}

// page is where a page of a list begins, and how long it is at most.
func page(after string, limit *int32) (string, int, error) {
	n, err := limitOf(limit, defaultPage, maxPage)
	if err != nil {
		return "", 0, err
	}
	if after != "" && chat.CheckConversationID("after", after) != nil {
		return "", 0, protocol.NewError(protocol.CodeInvalidArgument, "after", "after must be the next of a page")
	}
	return after, n, nil
}

// nextOf is where the page after a full one begins.
func nextOf(n, limit int, last func() string) *string {
	if n < limit {
		return nil
	}
	next := last()
	return &next
}

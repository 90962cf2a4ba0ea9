package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
)

// maxBody bounds a request's body in bytes.
const maxBody = 64 << 10

func tooLarge(limit int) *protocol.Error {
	return protocol.NewError(protocol.CodeTooLarge, "body", fmt.Sprintf("body has more than %d KiB", limit>>10))
}

// newGateway makes calls of the API of requests to the paths that the proto gives them.
// What it may answer itself is only success: errors are left in the call, so that
// server.serve answers all of them alike.
func newGateway(conn grpc.ClientConnInterface, rules map[string]rule) (http.Handler, error) {
	fail := func(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, _ http.ResponseWriter, _ *http.Request, err error) {
		callOf(ctx).failed = err
	}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{}),
		runtime.WithErrorHandler(fail),
		runtime.WithRoutingErrorHandler(func(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, _ http.ResponseWriter, _ *http.Request, _ int) {
			callOf(ctx).failed = noSuchOperation()
		}),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }), // the call has what counts
		runtime.WithForwardResponseOption(succeed(rules)),
		runtime.WithDisablePathLengthFallback(), runtime.WithDisableHTTPMethodOverride(),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, grpc.ClientConnInterface) error{
		func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
			return chatv1.RegisterAccountServiceHandlerClient(ctx, m, chatv1.NewAccountServiceClient(c))
		},
		func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
			return chatv1.RegisterBlockServiceHandlerClient(ctx, m, chatv1.NewBlockServiceClient(c))
		},
		func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
			return chatv1.RegisterConversationServiceHandlerClient(ctx, m, chatv1.NewConversationServiceClient(c))
		},
		func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
			return chatv1.RegisterFriendServiceHandlerClient(ctx, m, chatv1.NewFriendServiceClient(c))
		},
		func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
			return chatv1.RegisterMessageServiceHandlerClient(ctx, m, chatv1.NewMessageServiceClient(c))
		},
		func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
			return chatv1.RegisterSearchServiceHandlerClient(ctx, m, chatv1.NewSearchServiceClient(c))
		},
	} {
		if err := register(context.Background(), mux, conn); err != nil {
			return nil, err
		}
	}
	return mux, nil
}

// rest is the handler of an operation's path.
func rest(gateway http.Handler, rule rule) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		c := callOf(r.Context())
		c.setCookie = func(cookie *http.Cookie) { http.SetCookie(w, cookie) }
		c.refresh = cookieOf(r, refreshCookie)
		c.browser = r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != ""
		c.secure = r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
		r.Body = &body{
			ReadCloser: http.MaxBytesReader(w, r.Body, maxBody), call: c, contentType: r.Header.Get("Content-Type"), none: rule.bodiless && r.ContentLength == 0,
		}
		if r.Method == http.MethodHead { // as GET; net/http leaves the body away
			get := *r
			get.Method, r = http.MethodGet, &get
		}
		gateway.ServeHTTP(w, r)
		if c.refused != nil {
			return c.refused
		}
		return ofGateway(c.failed, rule)
	}
}

// quoted is how the gateway names a parameter that it cannot read.
var quoted = regexp.MustCompile(`^(?:type mismatch, parameter: |parsing field ")(\w+)`)

// ofGateway puts what the gateway itself found wrong into our words.
func ofGateway(err error, rule rule) error {
	said, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	if name := quoted.FindStringSubmatch(said.Message()); name != nil && said.Code() == codes.InvalidArgument {
		must := "as the documentation says"
		if f := rule.input.Fields().ByName(protoreflect.Name(name[1])); f != nil {
			must = wire.Kind(f)
		}
		return protocol.NewError(protocol.CodeInvalidArgument, name[1], name[1]+" must be "+must)
	}
	if said.Code() == codes.InvalidArgument {
		return protocol.NewError(protocol.CodeInvalidArgument, "", said.Message())
	}
	return err
}

// succeed gives an answer its status.
func succeed(rules map[string]rule) func(context.Context, http.ResponseWriter, proto.Message) error {
	return func(ctx context.Context, w http.ResponseWriter, _ proto.Message) error {
		method, _ := runtime.RPCMethod(ctx)
		code := rules[method].status
		if c := callOf(ctx); c.status != 0 {
			code = c.status
		}
		if code == http.StatusNoContent {
			w.Header().Del("Content-Type")
		}
		w.WriteHeader(code)
		return nil
	}
}

// routes are the patterns of net/http for the paths of all operations.
func routes(rules map[string]rule) map[string]rule {
	out := map[string]rule{}
	eachMethod(func(m protoreflect.MethodDescriptor) {
		rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		switch p := rule.GetPattern().(type) {
		case *annotations.HttpRule_Get:
			out["GET "+p.Get] = rules[fullName(m)]
		case *annotations.HttpRule_Put:
			out["PUT "+p.Put] = rules[fullName(m)]
		case *annotations.HttpRule_Post:
			out["POST "+p.Post] = rules[fullName(m)]
		case *annotations.HttpRule_Delete:
			out["DELETE "+p.Delete] = rules[fullName(m)]
		case *annotations.HttpRule_Patch:
			out["PATCH "+p.Patch] = rules[fullName(m)]
		}
	})
	return out
}

// body is a request's body, with what its decoder has to know and to leave behind.
type body struct {
	io.ReadCloser
	call        *call
	contentType string
	none        bool
}

// read is the body whole, strictly as JSON.
func (b *body) read(into proto.Message) *protocol.Error {
	if b.none {
		return nil
	}
	if kind, _, err := mime.ParseMediaType(b.contentType); err != nil || kind != "application/json" {
		return protocol.NewError(protocol.CodeInvalidArgument, "content-type", "content-type must be application/json")
	}
	text, err := io.ReadAll(b)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(maxBody)
	}
	if err != nil {
		return protocol.NewError(protocol.CodeInvalidArgument, "body", "body cannot be read")
	}
	return wire.ReadJSON(text, into)
}

// marshaler is JSON as package wire has it, for the gateway.
type marshaler struct{}

func (marshaler) ContentType(any) string { return "application/json" }

func (marshaler) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, errors.New("response body is not a message")
	}
	return append(wire.AppendJSON(nil, m), '\n'), nil
}

func (marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		b, m := r.(*body), v.(proto.Message) // server.rest and generated code see to it
		if err := b.read(m); err != nil {
			b.call.refused = err
			return err
		}
		return nil
	})
}

// NewEncoder and Unmarshal are for streams and for others' marshalers; nothing calls them.
func (m marshaler) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		b, err := m.Marshal(v)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	})
}

func (marshaler) Unmarshal(b []byte, v any) error {
	if err := wire.ReadJSON(b, v.(proto.Message)); err != nil {
		return err
	}
	return nil
}

package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/api"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/fault"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
	"github.com/tracegate/tracegate/core/session"
)

// acceptor answers everything with err, or panics.
type acceptor struct {
	err    error
	panics bool
}

func (a *acceptor) answer(done func(protocol.Accepted, error)) {
	if a.panics {
		panic("oh")
	}
	done(protocol.Accepted{ClientID: "1"}, a.err)
}

func (a *acceptor) Accept(_ context.Context, _ chat.User, _ protocol.Send, _ string, done func(protocol.Accepted, error)) {
	a.answer(done)
}

func (a *acceptor) Edit(_ context.Context, _ chat.User, _ protocol.Edit, _ string, done func(protocol.Accepted, error)) {
	a.answer(done)
}

func (a *acceptor) Recall(_ context.Context, _ chat.User, _ protocol.Recall, _ string, done func(protocol.Accepted, error)) {
	a.answer(done)
}

func (a *acceptor) React(_ context.Context, _ chat.User, _ protocol.React, _ string, done func(protocol.Accepted, error)) {
	a.answer(done)
}

func (a *acceptor) Unreact(_ context.Context, _ chat.User, _ protocol.React, _ string, done func(protocol.Accepted, error)) {
	a.answer(done)
}

func (a *acceptor) Change(_ context.Context, _ chat.User, _ chat.Record, _ string, done func(protocol.Accepted, error)) {
	a.answer(done)
}

// people are accounts with one valid token.
type people struct{ api.Accounts }

func (people) Verify(token string) (account.Identity, error) {
	if token != "good" {
		return account.Identity{}, protocol.NewError(protocol.CodeUnauthenticated, "", "token is not valid")
	}
	return account.Identity{User: chat.User{ID: "1", Name: "ann", Tenant: "t"}, SessionEnds: time.Now().Add(time.Hour)}, nil
}

func (p people) VerifyOnce(token string) (account.Identity, error) { return p.Verify(token) }

func (people) Ended(string) bool { return false }

// empty is a history without conversations.
type empty struct{ session.History }

func (empty) Heads(context.Context, ...string) (map[string]map[string]chat.Span, error) {
	return nil, nil
}

func (empty) Epoch() string { return "e1" }

type nobody struct{}

func (nobody) Subscribe(string)   {}
func (nobody) Unsubscribe(string) {}
func (nobody) Healthy() bool      { return true }

// served is the API of one process, whose parts behind it are made up.
type served struct {
	url      string
	conn     *grpc.ClientConn
	acceptor *acceptor
	registry *prometheus.Registry
}

func serve(t testing.TB) *served {
	t.Helper()
	s := &served{acceptor: &acceptor{}, registry: prometheus.NewRegistry()}
	log, tracing, trouble := slog.New(slog.DiscardHandler), sdktrace.NewTracerProvider(), fault.New(time.Now)
	hub, err := session.New(session.DefaultConfig(), session.Deps{
		Node: "n", Pool: "p", History: empty{}, Sender: s.acceptor, Fanout: nobody{}, Fault: trouble,
		Tracer: tracing.Tracer("test"), Registerer: s.registry, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	h, err := api.New(api.DefaultConfig(), api.Deps{
		Node: "n", Pool: "p", Accounts: people{}, Acceptor: s.acceptor, Sockets: hub, Fault: trouble, Healthy: func() bool { return true },
		Tracing: tracing, Propagator: propagation.TraceContext{}, Registerer: s.registry, Now: time.Now, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	s.url = server.URL
	if s.conn, err = grpc.NewClient("passthrough:///"+strings.TrimPrefix(s.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.conn.Close()
		cancel()
		<-done
		server.Close()
	})
	return s
}

// answer is what a transport says of an error.
type answer struct {
	Error *protocol.Error
	Code  string // of the transport
}

func (s *served) rest(t testing.TB, method, path, token, body string) answer {
	t.Helper()
	r, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := answer{Code: fmt.Sprint(resp.StatusCode)}
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode >= 300 {
		if err := json.Unmarshal(b, &out.Error); err != nil {
			t.Errorf("%v: %s", err, b)
		}
	}
	return out
}

func with(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func grpcAnswer(err error) answer {
	out := answer{Code: status.Code(err).String()}
	out.Error, _ = api.ErrorOf(err)
	return out
}

// socket sends commands and gives back the reply of each.
func (s *served) socket(t testing.TB, subprotocol string) func(protocol.Command) answer {
	t.Helper()
	d := websocket.Dialer{HandshakeTimeout: 10 * time.Second}
	if subprotocol != "" {
		d.Subprotocols = []string{subprotocol}
	}
	ws, resp, err := d.Dial("ws"+strings.TrimPrefix(s.url, "http")+"/v1/ws", http.Header{"Authorization": {"Bearer good"}})
	if err != nil {
		t.Fatal(err)
	}
	if ws.Subprotocol() != subprotocol {
		t.Fatalf("%q was agreed on, not %q (%v)", ws.Subprotocol(), subprotocol, resp.Header)
	}
	t.Cleanup(func() { _ = ws.Close() })
	return func(c protocol.Command) answer {
		t.Helper()
		var b []byte
		kind := websocket.TextMessage
		if subprotocol == wire.Protobuf {
			b, kind = wire.AppendCommand(nil, c), websocket.BinaryMessage
		} else {
			b, _ = json.Marshal(c)
		}
		if err := ws.WriteMessage(kind, b); err != nil {
			t.Fatal(err)
		}
		_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			got, b, err := ws.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			if got != kind {
				t.Fatalf("a frame of kind %d", got)
			}
			var f protocol.Frame
			if subprotocol == wire.Protobuf {
				f, _, err = wire.NextFrame(b)
			} else {
				err = json.Unmarshal(b, &f)
			}
			if err != nil {
				t.Fatal(err)
			}
			if f.ID == c.ID {
				return answer{Error: f.Error}
			}
		}
	}
}

// TestErrorsAreTheSameEverywhere: each of the closed list, and what is not of it, by
// every transport.
func TestErrorsAreTheSameEverywhere(t *testing.T) {
	s := serve(t)
	text, binary := s.socket(t, ""), s.socket(t, wire.Protobuf)
	grpcCodes := map[protocol.Code]codes.Code{
		protocol.CodeInvalidArgument: codes.InvalidArgument, protocol.CodeUnauthenticated: codes.Unauthenticated, protocol.CodePermissionDenied: codes.PermissionDenied,
		protocol.CodeNotFound: codes.NotFound, protocol.CodeAlreadyExists: codes.AlreadyExists, protocol.CodeTooLarge: codes.OutOfRange,
		protocol.CodeRateLimited: codes.ResourceExhausted, protocol.CodeUnavailable: codes.Unavailable, protocol.CodeInternal: codes.Internal,
	}
	httpCodes := map[protocol.Code]int{
		protocol.CodeInvalidArgument: 400, protocol.CodeUnauthenticated: 401, protocol.CodePermissionDenied: 403, protocol.CodeNotFound: 404, protocol.CodeAlreadyExists: 409,
		protocol.CodeTooLarge: 413, protocol.CodeRateLimited: 429, protocol.CodeUnavailable: 503, protocol.CodeInternal: 500,
	}
	type trial struct {
		name string
		err  error
		want *protocol.Error
	}
	trials := []trial{{"what is not of the list", errors.New("password=hunter2"), protocol.NewError(protocol.CodeInternal, "", "internal error")}}
	for _, c := range protocol.Codes() {
		for _, field := range []string{"", "text"} {
			e := protocol.NewError(c, field, "why it is so: ü, \"quoted\"")
			trials = append(trials, trial{fmt.Sprintf("%s of %q", c, field), fmt.Errorf("accept: %w", e), e})
		}
	}
	if len(protocol.Codes()) != len(grpcCodes) {
		t.Fatalf("%d codes", len(protocol.Codes()))
	}
	id := uint32(0)
	for _, c := range trials {
		t.Run(c.name, func(t *testing.T) {
			s.acceptor.err = c.err
			id++
			send := protocol.Command{ID: id, Send: &protocol.Send{Conversation: "c", ClientID: "1", Text: "x"}}
			_, err := chatv1.NewMessageServiceClient(s.conn).SendMessage(with(t.Context(), "good"), &chatv1.SendMessageRequest{Conversation: "c", ClientId: "1", Text: "x"})
			want := map[string]answer{
				"rest": {c.want, fmt.Sprint(httpCodes[c.want.Code])}, "grpc": {c.want, grpcCodes[c.want.Code].String()},
				"socket": {c.want, ""}, "socket in protobuf": {c.want, ""},
			}
			got := map[string]answer{
				"rest": s.rest(t, "POST", "/v1/conversations/c/messages", "good", `{"client_id":"1","text":"x"}`), "grpc": grpcAnswer(err),
				"socket": text(send), "socket in protobuf": binary(send),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			checkDetails(t, err, c.want)
		})
	}
}

// checkDetails looks for what generic clients of gRPC look for.
func checkDetails(t *testing.T, err error, want *protocol.Error) {
	t.Helper()
	var reason, field string
	wait := false
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.BadRequest:
			field = d.GetFieldViolations()[0].GetField()
		case *errdetails.RetryInfo:
			wait = d.GetRetryDelay().AsDuration() > 0
		}
	}
	if reason != string(want.Code) || field != want.Field || wait != (want.Code == protocol.CodeRateLimited || want.Code == protocol.CodeUnavailable) {
		t.Errorf("details: reason %q, field %q, wait %t", reason, field, wait)
	}
}

// TestPanicsAreAnswered, by gRPC too, whose handlers have goroutines of their own.
func TestPanicsAreAnswered(t *testing.T) {
	s := serve(t)
	s.acceptor.panics = true
	want := protocol.NewError(protocol.CodeInternal, "", "internal error")
	_, err := chatv1.NewMessageServiceClient(s.conn).SendMessage(with(t.Context(), "good"), &chatv1.SendMessageRequest{})
	for name, got := range map[string]answer{"grpc": grpcAnswer(err), "rest": s.rest(t, "POST", "/v1/conversations/c/messages", "good", `{}`)} {
		if diff := cmp.Diff(want, got.Error); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestEveryOperationWantsAToken, but for those that the proto calls public.
func TestEveryOperationWantsAToken(t *testing.T) {
	s := serve(t)
	for _, service := range []grpc.ServiceDesc{
		chatv1.AccountService_ServiceDesc, chatv1.BlockService_ServiceDesc, chatv1.ConversationService_ServiceDesc, chatv1.MessageService_ServiceDesc,
	} {
		for _, m := range service.Methods {
			name := "/" + service.ServiceName + "/" + m.MethodName
			for _, token := range []string{"", "bad"} {
				err := s.conn.Invoke(with(t.Context(), token), name, &chatv1.LogOutRequest{}, &chatv1.LogOutResponse{})
				public := map[string]bool{"Register": true, "LogIn": true, "LogOut": true, "RefreshSession": true}[m.MethodName]
				if got := status.Code(err) == codes.Unauthenticated; got == public {
					t.Errorf("%s with token %q: %v", name, token, err)
				}
			}
		}
	}
	stream, err := chatv1.NewSubscriptionServiceClient(s.conn).Subscribe(t.Context(), &chatv1.SubscribeRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("subscribe: %v", err)
	}
}

// TestResumeNamesAllConversations: those that a user may have at most, and as many that it
// had, with the longest numbers there are. One more is refused in words.
func TestResumeNamesAllConversations(t *testing.T) {
	s := serve(t)
	positions := map[string]int64{}
	for range 2 * chat.MaxConversations {
		positions[uuid.NewString()] = math.MaxInt64
	}
	resume := protocol.Resume{Token: strings.Repeat("t", 64), Epoch: "e1", Positions: positions}
	ways := map[string]func() *protocol.Error{
		"JSON": func() *protocol.Error { return s.socket(t, "")(protocol.Command{ID: 1, Resume: &resume}).Error },
		"protobuf": func() *protocol.Error {
			return s.socket(t, wire.Protobuf)(protocol.Command{ID: 1, Resume: &resume}).Error
		},
		"gRPC": func() *protocol.Error {
			ctx, cancel := context.WithCancel(with(t.Context(), "good"))
			defer cancel()
			stream, err := chatv1.NewSubscriptionServiceClient(s.conn).Subscribe(ctx, &chatv1.SubscribeRequest{
				Resume: &chatv1.Resume{Token: &resume.Token, Epoch: resume.Epoch, Positions: positions},
			})
			for err == nil {
				var f *chatv1.SubscribeResponse
				if f, err = stream.Recv(); f.GetFrame().GetResumed().GetRecovered() {
					return nil
				}
			}
			return grpcAnswer(err).Error
		},
	}
	for name, way := range ways {
		if err := way(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	positions[uuid.NewString()] = 1
	for name, way := range ways {
		if err := way(); err == nil || err.Code != protocol.CodeTooLarge || err.Field != "positions" {
			t.Errorf("%s with one more: %v", name, err)
		}
	}
}

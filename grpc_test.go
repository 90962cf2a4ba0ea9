package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// TestGRPCThroughTheEdge starts the circle with the default policy, real Envoy and core,
// and talks gRPC to the edge's one port: calls, a stream that resumes, groups and errors.
func TestGRPCThroughTheEdge(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole product")
	}
	p := newProduct(t)
	up := p.up(t)
	conn, err := grpc.NewClient("passthrough:///"+p.cfg.Edge.Listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := talkGRPC(ctx, t, conn); err != nil {
		t.Error(err)
	}
	up.stop(t)
}

func talkGRPC(ctx context.Context, t *testing.T, conn *grpc.ClientConn) error {
	accounts, messages := chatv1.NewAccountServiceClient(conn), chatv1.NewMessageServiceClient(conn)
	tokens := map[string]string{}
	for _, name := range []string{"ann", "bob"} {
		if _, err := accounts.Register(ctx, &chatv1.RegisterRequest{Name: name, Password: "of this test"}); err != nil {
			return fmt.Errorf("register: %w", err)
		}
		in, err := accounts.LogIn(ctx, &chatv1.LogInRequest{Name: name, Password: "of this test"})
		if err != nil {
			return fmt.Errorf("log in: %w", err)
		}
		tokens[name] = in.GetSession().GetToken()
	}
	as := func(name string, more ...string) context.Context {
		return metadata.AppendToOutgoingContext(ctx, append([]string{"authorization", "Bearer " + tokens[name]}, more...)...)
	}

	// The filter colors a call by cohort and tenant, and the chooser picks the pool.
	for env, pool := range map[string]string{"prod": semconv.PoolBaseline, "canary": semconv.PoolCanary} {
		var header metadata.MD
		me, err := accounts.GetMe(as("ann", "x-env", env, semconv.HeaderGroup, "000000"), &chatv1.GetMeRequest{}, grpc.Header(&header))
		if err != nil {
			return fmt.Errorf("get me: %w", err)
		}
		want := group.Group{Color: group.ColorOf(map[string]string{"prod": "", "canary": "canary"}[env]), Env: env, Tenant: me.GetUser().GetTenant()}
		if got := header.Get(semconv.HeaderGroup); env == "canary" && !slices.Equal(got, []string{string(want.ID())}) || len(got) != 1 || got[0] != me.GetGroup() || !group.ID(got[0]).Valid() {
			t.Errorf("%s: group %v, core was told %s, want %s", env, got, me.GetGroup(), want.ID())
		}
		if me.GetPool() != pool || !slices.Equal(header.Get(semconv.HeaderPool), []string{pool}) || me.GetEnv() != env {
			t.Errorf("%s: served by %s, headers %v", env, me.GetPool(), header)
		}
	}

	// Errors keep their details, and a token that is none is turned away.
	_, err := accounts.GetUser(as("ann"), &chatv1.GetUserRequest{Name: "nobody"})
	st := status.Convert(err)
	var detail *chatv1.Error
	for _, d := range st.Details() {
		if e, ok := d.(*chatv1.Error); ok {
			detail = e
		}
	}
	if st.Code() != codes.NotFound || detail.GetField() != "name" {
		t.Errorf("look up nobody: %v, %v", err, detail)
	}
	bad := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+tokens["ann"]+"x")
	if _, err := accounts.GetMe(bad, &chatv1.GetMeRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a false token: %v", err)
	}

	direct, err := chatv1.NewConversationServiceClient(conn).CreateConversation(as("ann"), &chatv1.CreateConversationRequest{With: "bob"})
	if err != nil {
		return fmt.Errorf("open a conversation: %w", err)
	}
	id := direct.GetConversation().GetId()
	send := func(n int) error {
		_, err := messages.SendMessage(as("ann"), &chatv1.SendMessageRequest{Conversation: id, ClientId: fmt.Sprint(n), Text: fmt.Sprint("message ", n)})
		return err
	}
	// Bob's stream is cut off by himself after the third message and resumes after it; what
	// came meanwhile comes once and in order, and the stream goes on.
	epoch, position := "", int64(0)
	for round := range 2 {
		sub, hang := context.WithCancel(as("bob", "x-env", "canary"))
		resume := &chatv1.Resume{Epoch: epoch}
		if round > 0 {
			resume.Positions = map[string]int64{id: position}
		}
		stream, err := chatv1.NewSubscriptionServiceClient(conn).Subscribe(sub, &chatv1.SubscribeRequest{Resume: resume})
		if err != nil {
			hang()
			return fmt.Errorf("subscribe: %w", err)
		}
		err = follow(stream, func(f protocol.Frame) (bool, error) {
			switch {
			case f.Hello != nil:
				if epoch = f.Hello.Epoch; f.Hello.Pool != semconv.PoolCanary || !group.ID(f.Hello.Group).Valid() {
					t.Errorf("hello %+v", f.Hello)
				}
			case f.Resumed != nil:
				if !f.Resumed.Recovered || f.Resumed.Replayed > 2*round { // what is accepted and not stored yet is pushed later
					t.Errorf("round %d: %+v", round, f.Resumed)
				}
				for n := range 3 {
					if err := send(10*round + n); err != nil {
						return false, err
					}
				}
			case f.Message != nil:
				if f.Message.Seq != position+1 {
					t.Errorf("seq %d after %d", f.Message.Seq, position)
				}
				position = f.Message.Seq
			}
			return position == int64(3+5*round), nil
		})
		hang()
		if err != nil {
			return err
		}
		if round == 0 { // while nobody listens
			for n := range 2 {
				if err := send(5 + n); err != nil {
					return fmt.Errorf("send: %w", err)
				}
			}
		}
	}
	return nil
}

// follow reads frames until done says so.
func follow(stream grpc.ServerStreamingClient[chatv1.SubscribeResponse], done func(protocol.Frame) (bool, error)) error {
	for {
		got, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		if is, err := done(wire.FrameOf(got.GetFrame())); is || err != nil {
			return err
		}
	}
}

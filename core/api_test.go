package core_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"

	"github.com/tracegate/tracegate/core/api"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
)

// grpc connects to a process by gRPC.
func (n *node) grpc() *grpc.ClientConn {
	n.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(n.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(n.t, err)
	n.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func as(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// subscription is a stream and what came by it.
type subscription struct {
	t      testing.TB
	stream grpc.ServerStreamingClient[chatv1.SubscribeResponse]
	stop   func()
}

func (n *node) subscribe(conn *grpc.ClientConn, token string, r *chatv1.Resume) *subscription {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(as(context.Background(), token), 2*time.Minute)
	n.t.Cleanup(cancel)
	stream, err := chatv1.NewSubscriptionServiceClient(conn).Subscribe(ctx, &chatv1.SubscribeRequest{Resume: r})
	must(n.t, err)
	return &subscription{n.t, stream, cancel}
}

func (s *subscription) next() protocol.Frame {
	s.t.Helper()
	got, err := s.stream.Recv()
	must(s.t, err)
	return wire.FrameOf(got.GetFrame())
}

// until reads frames until one of a kind, and returns the texts of messages before it.
func (s *subscription) until(is func(protocol.Frame) bool) (f protocol.Frame, texts []string) {
	s.t.Helper()
	for {
		f = s.next()
		if is(f) {
			return f, texts
		}
		if f.Message != nil {
			texts = append(texts, f.Message.Text)
		}
	}
}

func isMessage(text string) func(protocol.Frame) bool {
	return func(f protocol.Frame) bool { return f.Message != nil && f.Message.Text == text }
}

// TestGRPCSpeaksAllOfIt calls every operation by gRPC alone, against a real process.
func TestGRPCSpeaksAllOfIt(t *testing.T) {
	n := newWorld(t).start0()
	conn := n.grpc()
	accounts, blocks := chatv1.NewAccountServiceClient(conn), chatv1.NewBlockServiceClient(conn)
	conversations, messages := chatv1.NewConversationServiceClient(conn), chatv1.NewMessageServiceClient(conn)
	tokens := map[string]string{}
	for _, name := range []string{"ann", "bob", "cid"} {
		user, err := accounts.Register(t.Context(), &chatv1.RegisterRequest{Name: name, Password: password})
		must(t, err)
		in, err := accounts.LogIn(t.Context(), &chatv1.LogInRequest{Name: name, Password: password, Device: "phone"})
		must(t, err)
		fresh, err := accounts.RefreshSession(t.Context(), &chatv1.RefreshSessionRequest{RefreshToken: in.GetSession().GetRefreshToken()})
		must(t, err)
		if s := fresh.GetSession(); s.GetId() != in.GetSession().GetId() || !proto.Equal(s.GetUser(), user.GetUser()) || time.Until(s.GetRefreshExpiresAt().AsTime()) < time.Hour {
			t.Errorf("%v, %v", user, in)
		}
		tokens[name] = fresh.GetSession().GetToken()
	}
	ann, bob := as(t.Context(), tokens["ann"]), as(t.Context(), tokens["bob"])
	me, err := accounts.GetMe(ann, &chatv1.GetMeRequest{})
	must(t, err)
	other, err := accounts.GetUser(ann, &chatv1.GetUserRequest{Name: "bob"})
	must(t, err)
	if me.GetUser().GetName() != "ann" || me.GetPool() != "baseline" || len(me.GetTraceId()) != 32 || other.GetUser().GetOnline() {
		t.Errorf("%v, %v", me, other)
	}
	direct, err := conversations.CreateConversation(ann, &chatv1.CreateConversationRequest{With: "bob"})
	must(t, err)
	id := direct.GetConversation().GetId()

	sub := n.subscribe(conn, tokens["bob"], nil)
	hello := sub.next()
	if hello.Hello == nil || hello.Hello.User != "bob" || hello.Hello.Epoch == "" {
		t.Fatalf("first %+v", hello)
	}
	sub.until(func(f protocol.Frame) bool { return f.Resumed != nil })
	sent, err := messages.SendMessage(ann, &chatv1.SendMessageRequest{Conversation: id, ClientId: "1", Text: "hello"})
	must(t, err)
	got, _ := sub.until(isMessage("hello"))
	if m := got.Message; m.Seq != 1 || m.Sender != "ann" || m.ClientID != "1" || m.TraceID != sent.GetAccepted().GetTraceId() || time.Since(m.SentAt) > time.Minute {
		t.Errorf("pushed %+v", m)
	}
	marked, err := messages.Mark(bob, &chatv1.MarkRequest{Conversation: id, Read: 1})
	must(t, err)
	if r := marked.GetReceipt(); r.GetUser() != "bob" || r.GetRead() != 1 || r.GetDelivered() != 1 {
		t.Errorf("receipt %v", r)
	}
	_, err = messages.SendTyping(ann, &chatv1.SendTypingRequest{Conversation: id})
	must(t, err)
	if f, _ := sub.until(func(f protocol.Frame) bool { return f.Typing != nil }); f.Typing.User != "ann" {
		t.Errorf("typing %+v", f.Typing)
	}
	_, err = messages.EditMessage(ann, &chatv1.EditMessageRequest{Conversation: id, Seq: 1, ClientId: "2", Text: "hello!"})
	must(t, err)
	if f, _ := sub.until(isMessage("hello!")); f.Message.Event.Kind != protocol.EventEdited || f.Message.Event.Target != 1 {
		t.Errorf("edited %+v", f.Message)
	}
	_, err = messages.AddReaction(bob, &chatv1.AddReactionRequest{Conversation: id, Seq: 1, Emoji: "👍", ClientId: "3"})
	must(t, err)
	reacted, _ := sub.until(func(f protocol.Frame) bool {
		return f.Message != nil && f.Message.Event != nil && f.Message.Event.Emoji != ""
	})
	if e := reacted.Message.Event; e.Kind != protocol.EventReacted || e.Target != 1 || e.Count != 1 || reacted.Message.Sender != "bob" {
		t.Errorf("reacted %+v", e)
	}
	history, err := messages.ListMessages(bob, &chatv1.ListMessagesRequest{Conversation: id})
	must(t, err)
	if list := history.GetMessages()[0].GetReactions(); len(list) != 1 || list[0].GetCount() != 1 || !list[0].GetMine() {
		t.Errorf("reactions %v", list)
	}
	_, err = messages.RemoveReaction(bob, &chatv1.RemoveReactionRequest{Conversation: id, Seq: 1, Emoji: "👍", ClientId: "4"})
	must(t, err)
	sub.until(func(f protocol.Frame) bool {
		return f.Message != nil && f.Message.Event != nil && f.Message.Event.Kind == protocol.EventUnreacted
	})
	_, err = messages.RecallMessage(ann, &chatv1.RecallMessageRequest{Conversation: id, Seq: 1})
	must(t, err)
	sub.until(func(f protocol.Frame) bool {
		return f.Message != nil && f.Message.Event != nil && f.Message.Event.Kind == protocol.EventRecalled
	})
	page, err := messages.ListMessages(bob, &chatv1.ListMessagesRequest{Conversation: id, Before: proto.Int64(3), Limit: proto.Int32(2)})
	must(t, err)
	if list := page.GetMessages(); len(list) != 2 || !list[0].GetRecalled() || list[0].GetText() != "" || page.GetEpoch() != hello.Hello.Epoch {
		t.Errorf("history %v", page)
	}

	group, err := conversations.CreateConversation(ann, &chatv1.CreateConversationRequest{Name: "dinner", Members: []string{"bob"}, ClientId: "g"})
	must(t, err)
	g := group.GetConversation().GetId()
	change := func(kind protocol.EventKind, accepted *chatv1.Accepted, err error) {
		t.Helper()
		must(t, err)
		sub.until(func(f protocol.Frame) bool {
			return f.Message != nil && f.Message.Event != nil && f.Message.Event.Kind == kind && f.Message.ClientID == accepted.GetClientId()
		})
	}
	added, err := conversations.AddMembers(ann, &chatv1.AddMembersRequest{Conversation: g, Members: []string{"cid"}, ClientId: "a"})
	change(protocol.EventAdded, added.GetAccepted(), err)
	role, err := conversations.SetMemberRole(ann, &chatv1.SetMemberRoleRequest{Conversation: g, Name: "cid", Role: "admin"})
	change(protocol.EventRole, role.GetAccepted(), err)
	renamed, err := conversations.RenameConversation(ann, &chatv1.RenameConversationRequest{Conversation: g, Name: "lunch"})
	change(protocol.EventRenamed, renamed.GetAccepted(), err)
	members, err := conversations.ListMembers(bob, &chatv1.ListMembersRequest{Conversation: g, Limit: proto.Int32(2)})
	must(t, err)
	rest, err := conversations.ListMembers(bob, &chatv1.ListMembersRequest{Conversation: g, After: members.GetNext()})
	must(t, err)
	if len(members.GetMembers()) != 2 || len(rest.GetMembers()) != 1 || rest.Next != nil {
		t.Errorf("%v, %v", members, rest)
	}
	removed, err := conversations.RemoveMember(ann, &chatv1.RemoveMemberRequest{Conversation: g, Name: "cid"})
	change(protocol.EventRemoved, removed.GetAccepted(), err)
	cid := as(t.Context(), tokens["cid"])
	_, err = conversations.JoinConversation(cid, &chatv1.JoinConversationRequest{Conversation: g})
	if e, ok := api.ErrorOf(err); !ok || e.Code != protocol.CodeNotFound || e.Field != "conversation" {
		t.Errorf("join what is not open: %v", err)
	}
	opened, err := conversations.RenameConversation(ann, &chatv1.RenameConversationRequest{Conversation: g, Open: proto.Bool(true)})
	change(protocol.EventOpened, opened.GetAccepted(), err)
	joined, err := conversations.JoinConversation(cid, &chatv1.JoinConversationRequest{Conversation: g, ClientId: "j"})
	change(protocol.EventAdded, joined.GetAccepted(), err)
	left, err := conversations.RemoveMember(cid, &chatv1.RemoveMemberRequest{Conversation: g, Name: "cid"})
	change(protocol.EventRemoved, left.GetAccepted(), err)
	muted, err := conversations.MuteConversation(bob, &chatv1.MuteConversationRequest{Conversation: g, Muted: proto.Bool(true)})
	must(t, err)
	one, err := conversations.GetConversation(bob, &chatv1.GetConversationRequest{Conversation: g})
	must(t, err)
	if !muted.GetConversation().GetMuted() || one.GetConversation().GetName() != "lunch" || one.GetConversation().GetMemberCount() != 2 || !one.GetConversation().GetOpen() {
		t.Errorf("%v, %v", muted, one)
	}
	all, err := conversations.ListConversations(bob, &chatv1.ListConversationsRequest{})
	must(t, err)
	if len(all.GetConversations()) != 2 || all.Next != nil {
		t.Errorf("%v", all)
	}
	older, err := conversations.ListConversations(bob, &chatv1.ListConversationsRequest{Limit: proto.Int32(1)})
	must(t, err)
	newer, err := conversations.ListConversations(bob, &chatv1.ListConversationsRequest{After: older.GetNext()})
	must(t, err)
	if pages := append(older.GetConversations(), newer.GetConversations()...); len(pages) != 2 || pages[0].GetId() != id || pages[1].GetId() != g || newer.Next != nil {
		t.Errorf("%v, %v", older, newer)
	}

	_, err = blocks.Block(bob, &chatv1.BlockRequest{Name: "ann"})
	must(t, err)
	list, err := blocks.ListBlocks(bob, &chatv1.ListBlocksRequest{})
	must(t, err)
	if diff := cmp.Diff([]string{"ann"}, list.GetNames()); diff != "" {
		t.Error(diff)
	}
	_, err = messages.SendMessage(ann, &chatv1.SendMessageRequest{Conversation: id, ClientId: "3", Text: "x"})
	if e, ok := api.ErrorOf(err); !ok || e.Code != protocol.CodePermissionDenied || e.Field != "conversation" {
		t.Errorf("who is blocked sends: %v", err)
	}
	_, err = blocks.Unblock(bob, &chatv1.UnblockRequest{Name: "ann"})
	must(t, err)
	friends := chatv1.NewFriendServiceClient(conn)
	asked, err := friends.RequestFriend(bob, &chatv1.RequestFriendRequest{Name: "cid"})
	must(t, err)
	if f, _ := sub.until(func(f protocol.Frame) bool { return f.Friend != nil }); asked.GetState() != "outgoing" || f.Friend.User != "cid" || f.Friend.State != "outgoing" {
		t.Errorf("%v, %+v", asked, f.Friend)
	}
	accepted, err := friends.AcceptFriend(cid, &chatv1.AcceptFriendRequest{Name: "bob"})
	must(t, err)
	mine, err := friends.ListFriends(cid, &chatv1.ListFriendsRequest{})
	must(t, err)
	if l := mine.GetFriends(); accepted.GetState() != "friend" || len(l) != 1 || l[0].GetName() != "bob" || time.Since(l[0].GetSince().AsTime()) > 5*time.Minute {
		t.Errorf("%v, %v", accepted, mine)
	}
	_, err = friends.EndFriend(bob, &chatv1.EndFriendRequest{Name: "cid"})
	must(t, err)
	profile, err := accounts.UpdateProfile(bob, &chatv1.UpdateProfileRequest{DisplayName: proto.String("Bob")})
	must(t, err)
	devices, err := accounts.ListSessions(bob, &chatv1.ListSessionsRequest{})
	must(t, err)
	if d := devices.GetSessions(); profile.GetUser().GetDisplayName() != "Bob" || len(d) != 1 || d[0].GetDevice() != "phone" || !d[0].GetCurrent() {
		t.Errorf("%v, %v", profile, devices)
	}
	_, err = accounts.ChangePassword(bob, &chatv1.ChangePasswordRequest{Old: "wrong password", New: password})
	if e, ok := api.ErrorOf(err); !ok || e.Code == protocol.CodeInternal {
		t.Errorf("a wrong password: %v", err)
	}
	_, err = accounts.EndSession(bob, &chatv1.EndSessionRequest{Id: "none"})
	if e, ok := api.ErrorOf(err); !ok || e.Code != protocol.CodeNotFound {
		t.Errorf("end no session: %v", err)
	}
	_, err = chatv1.NewSearchServiceClient(conn).SearchMessages(bob, &chatv1.SearchMessagesRequest{Q: "x"})
	if e, ok := api.ErrorOf(err); !ok || e.Code != protocol.CodeNotFound {
		t.Errorf("search where nothing is indexed: %v", err)
	}
	_, err = accounts.EndSessions(bob, &chatv1.EndSessionsRequest{})
	must(t, err)
	for err == nil { // the stream ends with the session
		_, err = sub.stream.Recv()
	}
	if e, ok := api.ErrorOf(err); !ok || e.Code != protocol.CodeUnauthenticated {
		t.Errorf("subscription of a session that has ended: %v", err)
	}
	_, err = accounts.LogOut(ann, &chatv1.LogOutRequest{})
	must(t, err)
	if _, err = accounts.GetMe(ann, &chatv1.GetMeRequest{}); err == nil {
		t.Error("the token of a session that has ended works")
	}
}

// TestSubscribeResumes on another process, and is told to leave when one drains.
func TestSubscribeResumes(t *testing.T) {
	w := newWorld(t)
	one := w.start(w.config("baseline"))
	second := w.config("canary")
	two := w.start(second)
	ann, bob := one.person("ann"), one.person("bob")
	id := one.direct(ann, "bob")
	sub := one.subscribe(one.grpc(), bob, &chatv1.Resume{})
	hello := sub.next().Hello
	must(t, one.send(ann, id, "m1"))
	got, _ := sub.until(func(f protocol.Frame) bool { return f.Message != nil })
	sub.stop()
	for _, c := range []string{"m2", "m3"} {
		must(t, one.send(ann, id, c))
	}
	eventually(t, "all are stored", func() bool { return len(one.history(ann, id)) == 3 })

	again := two.subscribe(two.grpc(), bob, &chatv1.Resume{Epoch: hello.Epoch, Positions: map[string]int64{id: got.Message.Seq}})
	resumed, texts := again.until(func(f protocol.Frame) bool { return f.Resumed != nil })
	if !resumed.Resumed.Recovered || resumed.Resumed.Replayed != 2 || len(texts) != 2 {
		t.Errorf("%+v after %q", resumed.Resumed, texts)
	}
	must(t, one.send(ann, id, "m4")) // by the fan-out
	live, _ := again.until(func(f protocol.Frame) bool { return f.Message != nil })
	if live.Message.Seq != 4 || live.Message.ClientID != "m4" {
		t.Errorf("live %+v", live.Message)
	}
	lost := two.subscribe(two.grpc(), bob, &chatv1.Resume{Epoch: "another", Positions: map[string]int64{id: 1}})
	if resumed, _ := lost.until(func(f protocol.Frame) bool { return f.Resumed != nil }); resumed.Resumed.Recovered {
		t.Error("positions of another history were taken")
	}

	go two.stop()
	ask, _ := again.until(func(f protocol.Frame) bool { return f.Reconnect != nil })
	if ask.Reconnect.Reason != "shutdown" || ask.Reconnect.Resume == "" {
		t.Errorf("%+v", ask.Reconnect)
	}
	var err error
	for err == nil {
		_, err = again.stream.Recv()
	}
	if e, ok := api.ErrorOf(err); !ok || e.Code != protocol.CodeUnavailable || !e.Temporary {
		t.Errorf("ended with %v", err)
	}
}

func TestSubscribeChecksItsResume(t *testing.T) {
	n := newWorld(t).start0()
	bob := n.person("bob")
	sub := n.subscribe(n.grpc(), bob, &chatv1.Resume{Positions: map[string]int64{"a": -1}})
	_, err := sub.stream.Recv()
	if e, ok := api.ErrorOf(err); !ok || e.Code != protocol.CodeInvalidArgument || e.Field != "positions" {
		t.Errorf("got %v", err)
	}
}

// TestHealthAndReflection need no token.
func TestHealthAndReflection(t *testing.T) {
	n := newWorld(t).start0()
	conn := n.grpc()
	h, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || h.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("%v %v", h, err)
	}
	info, err := reflectv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	must(t, err)
	must(t, info.Send(&reflectv1.ServerReflectionRequest{MessageRequest: &reflectv1.ServerReflectionRequest_ListServices{}}))
	list, err := info.Recv()
	must(t, err)
	names := map[string]bool{}
	for _, s := range list.GetListServicesResponse().GetService() {
		names[s.GetName()] = true
	}
	if !names["tracegate.chat.v1.MessageService"] || !names["tracegate.chat.v1.SubscriptionService"] {
		t.Errorf("services %v", names)
	}
}

package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
)

// ListMembers pages members in an order of the server's; Next is left out on the last page.
func (s *service) ListMembers(ctx context.Context, in *chatv1.ListMembersRequest) (*chatv1.ListMembersResponse, error) {
	c, err := s.own(ctx, in.GetConversation())
	if err != nil {
		return nil, err
	}
	after, limit, err := page(in.GetAfter(), in.Limit)
	if err != nil {
		return nil, err
	}
	list, err := s.deps.Conversations.Members(ctx, c.ID, after, limit)
	if err != nil {
		return nil, err
	}
	out := &chatv1.ListMembersResponse{Next: nextOf(len(list), limit, func() string { return list[len(list)-1].ID })}
	for _, m := range list {
		out.Members = append(out.Members, &chatv1.Member{Name: m.Name, Role: m.Role.String(), Read: m.Read, Delivered: m.Delivered})
	}
	return out, nil
}

func (s *service) AddMembers(ctx context.Context, in *chatv1.AddMembersRequest) (*chatv1.AddMembersResponse, error) {
	if len(in.GetMembers()) == 0 {
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "members", "members must not be empty")
	}
	if _, err := s.own(ctx, in.GetConversation()); err != nil { // before names of others are looked up
		return nil, err
	}
	members, err := s.members(ctx, in.GetMembers())
	if err != nil {
		return nil, err
	}
	a, err := s.change(ctx, in.GetConversation(), in.GetClientId(), chat.Record{Kind: protocol.EventAdded, Members: members})
	return &chatv1.AddMembersResponse{Accepted: a}, err
}

// JoinConversation makes the caller a member of an open group. Who is not in it yet must have
// room for one more conversation, and is told so before anything about the group.
func (s *service) JoinConversation(ctx context.Context, in *chatv1.JoinConversationRequest) (*chatv1.JoinConversationResponse, error) {
	me := caller(ctx).User
	if err := chat.CheckConversationID("conversation", in.GetConversation()); err != nil {
		return nil, err
	}
	_, err := s.deps.Conversations.Conversation(ctx, me.ID, in.GetConversation())
	if errors.Is(err, chat.ErrNotFound) {
		err = s.hasRoom(ctx, me.ID)
	}
	if err != nil {
		return nil, err
	}
	a, err := s.change(ctx, in.GetConversation(), in.GetClientId(), chat.Record{Kind: protocol.EventAdded, Members: []chat.Member{{ID: me.ID, Name: me.Name}}})
	return &chatv1.JoinConversationResponse{Accepted: a}, err
}

func (s *service) hasRoom(ctx context.Context, userID string) error {
	full, err := s.deps.Conversations.Full(ctx, []string{userID}, int(s.conversations.Load()))
	if err == nil && full[userID] {
		return protocol.NewError(protocol.CodePermissionDenied, "conversation", "you have too many conversations")
	}
	return err
}

func (s *service) SetMemberRole(ctx context.Context, in *chatv1.SetMemberRoleRequest) (*chatv1.SetMemberRoleResponse, error) {
	role, ok := chat.ParseRole(in.GetRole())
	if !ok {
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "role", "role must be member, admin or owner")
	}
	whom, err := s.member(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	a, err := s.change(ctx, in.GetConversation(), in.GetClientId(), chat.Record{Kind: protocol.EventRole, Members: whom, Role: role})
	return &chatv1.SetMemberRoleResponse{Accepted: a}, err
}

// RemoveMember removes a member; the caller's own name leaves the group.
func (s *service) RemoveMember(ctx context.Context, in *chatv1.RemoveMemberRequest) (*chatv1.RemoveMemberResponse, error) {
	whom, err := s.member(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	a, err := s.change(ctx, in.GetConversation(), in.GetClientId(), chat.Record{Kind: protocol.EventRemoved, Members: whom})
	return &chatv1.RemoveMemberResponse{Accepted: a}, err
}

// RenameConversation names a group anew, or opens or closes it: each is an entry, and a call
// makes one.
func (s *service) RenameConversation(ctx context.Context, in *chatv1.RenameConversationRequest) (*chatv1.RenameConversationResponse, error) {
	record := chat.Record{Kind: protocol.EventRenamed, Name: in.GetName()}
	switch {
	case in.Open == nil:
	case in.GetName() != "":
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "open", "open and name are changed one at a time")
	case in.GetOpen():
		record = chat.Record{Kind: protocol.EventOpened}
	default:
		record = chat.Record{Kind: protocol.EventClosed}
	}
	a, err := s.change(ctx, in.GetConversation(), in.GetClientId(), record)
	return &chatv1.RenameConversationResponse{Accepted: a}, err
}

// member is the user with a name. Whether it is a member is judged later.
func (s *service) member(ctx context.Context, name string) ([]chat.Member, error) {
	u, err := s.named(ctx, name)
	return []chat.Member{{ID: u.ID, Name: u.Name}}, err
}

// change accepts a change of a group. Its client id may be left out; the kind before it
// keeps it apart from those of messages.
func (s *service) change(ctx context.Context, conversation, clientID string, record chat.Record) (*chatv1.Accepted, error) {
	if clientID == "" {
		fresh, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("new client id: %w", err)
		}
		clientID = fresh.String()
	}
	if err := chat.CheckClientID(clientID); err != nil {
		return nil, err
	}
	record.Conversation, record.ClientID = conversation, string(record.Kind)+"."+clientID
	return s.accepted(ctx, func(done func(protocol.Accepted, error)) {
		s.deps.Acceptor.Change(ctx, caller(ctx).User, record, traceID(ctx), done)
	})
}

// accepted answers when something is durable in the log.
func (s *service) accepted(ctx context.Context, accept func(done func(protocol.Accepted, error))) (*chatv1.Accepted, error) {
	a, err := await(ctx, accept)
	if err != nil {
		return nil, err
	}
	return wire.Accepted(a), nil
}

package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
)

func conversationOf(c chat.Conversation) *chatv1.Conversation {
	out := &chatv1.Conversation{
		Id: c.ID, Kind: "direct", MemberCount: int32(c.Count), Role: c.Role.String(), LastSeq: c.LastSeq, Read: c.Read, Unread: int32(c.Unread), Muted: c.Muted,
	}
	if c.Group {
		out.Kind, out.Name, out.Open = "group", &c.Name, c.Open
	}
	for _, m := range c.Members {
		out.Members = append(out.Members, m.Name)
	}
	return out
}

func (s *service) CreateConversation(ctx context.Context, in *chatv1.CreateConversationRequest) (*chatv1.CreateConversationResponse, error) {
	var c chat.Conversation
	var err error
	switch group := in.GetName() != "" || in.GetMembers() != nil || in.GetClientId() != "" || in.GetOpen(); {
	case group && in.GetWith() != "":
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "with", "with is for a direct conversation, name and members are for a group")
	case group:
		c, err = s.createGroup(ctx, in)
	default:
		c, err = s.openDirect(ctx, in.GetWith())
	}
	if err != nil {
		return nil, err
	}
	return &chatv1.CreateConversationResponse{Conversation: conversationOf(c)}, nil
}

func (s *service) openDirect(ctx context.Context, with string) (chat.Conversation, error) {
	me := caller(ctx).User
	if err := chat.CheckName("with", with); err != nil {
		return chat.Conversation{}, err
	}
	if with == me.Name {
		return chat.Conversation{}, protocol.NewError(protocol.CodeInvalidArgument, "with", "with must be someone else")
	}
	other, err := s.deps.Conversations.User(ctx, with)
	if errors.Is(err, chat.ErrNotFound) {
		return chat.Conversation{}, protocol.NewError(protocol.CodeNotFound, "with", "there is no such user")
	}
	if err != nil {
		return chat.Conversation{}, err
	}
	fresh, err := uuid.NewV7()
	if err != nil {
		return chat.Conversation{}, fmt.Errorf("new conversation id: %w", err)
	}
	c, err := s.deps.Conversations.Direct(ctx, fresh.String(), me, other, int(s.conversations.Load()), s.deps.Now())
	if err != nil {
		return c, creation(err, "with")
	}
	return c, nil
}

// creation translates what a store says to a new conversation.
func creation(err error, field string) error {
	switch {
	case errors.Is(err, chat.ErrLimit):
		return protocol.NewError(protocol.CodePermissionDenied, field, "one of you has too many conversations")
	case errors.Is(err, chat.ErrUnstorable): // the token's user is not in this database
		return protocol.NewError(protocol.CodeUnauthenticated, "", "your user does not exist any more")
	case errors.Is(err, chat.ErrExists): // after the one before: what is not in the database is both
		return protocol.NewError(protocol.CodeAlreadyExists, "client_id", "the group that this client_id has created is not yours any more")
	default:
		return err
	}
}

func (s *service) createGroup(ctx context.Context, in *chatv1.CreateConversationRequest) (chat.Conversation, error) {
	me := caller(ctx).User
	if err := chat.CheckGroupName(in.GetName()); err != nil {
		return chat.Conversation{}, err
	}
	members, err := s.members(ctx, slices.DeleteFunc(in.GetMembers(), func(name string) bool { return name == me.Name }))
	if err != nil {
		return chat.Conversation{}, err
	}
	conversation, err := groupID(me.ID, in.GetClientId())
	if err != nil {
		return chat.Conversation{}, err
	}
	first, fresh, err := s.deps.Conversations.Group(ctx, chat.Record{
		Conversation: conversation, ClientID: "created." + conversation, SenderID: me.ID, Sender: me.Name,
		SentAt: s.now(), TraceID: traceID(ctx), Members: members, Name: in.GetName(), Open: in.GetOpen(),
	}, int(s.conversations.Load()))
	if err != nil {
		return chat.Conversation{}, creation(err, "members")
	}
	if fresh {
		callOf(ctx).status = http.StatusCreated
		s.deps.Announcer.Announce(first)
	}
	return s.own(ctx, conversation)
}

// groupID is a new id or, with a client id, the one that this creator's call always has.
func groupID(creator, clientID string) (string, error) {
	if clientID == "" {
		fresh, err := uuid.NewV7()
		if err != nil {
			return "", fmt.Errorf("new conversation id: %w", err)
		}
		return fresh.String(), nil
	}
	if err := chat.CheckClientID(clientID); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(creator + " " + clientID))
	return hex.EncodeToString(sum[:16]), nil
}

// members finds people by their names, who must have room for one more conversation.
func (s *service) members(ctx context.Context, names []string) ([]chat.Member, error) {
	if len(names) > chat.MaxAdded {
		return nil, protocol.NewError(protocol.CodeTooLarge, "members", fmt.Sprintf("members has %d names, at most %d are allowed at a time", len(names), chat.MaxAdded))
	}
	for _, name := range names {
		if err := chat.CheckName("members", name); err != nil {
			return nil, err
		}
	}
	users, err := s.deps.Conversations.Users(ctx, names)
	if err != nil {
		return nil, err
	}
	var ids []string
	byName := map[string]chat.User{}
	for _, u := range users {
		byName[u.Name], ids = u, append(ids, u.ID)
	}
	full, err := s.deps.Conversations.Full(ctx, ids, int(s.conversations.Load()))
	if err != nil {
		return nil, err
	}
	blockers, err := s.deps.Blocks.Blockers(ctx, ids, caller(ctx).User.ID)
	if err != nil {
		return nil, err
	}
	out := make([]chat.Member, 0, len(users))
	for _, name := range names {
		u, known := byName[name]
		switch {
		case !known:
			return nil, protocol.NewError(protocol.CodeNotFound, "members", "there is no user "+name)
		case blockers[u.ID]:
			return nil, protocol.NewError(protocol.CodePermissionDenied, "members", name+" has blocked you")
		case full[u.ID]:
			return nil, protocol.NewError(protocol.CodePermissionDenied, "members", name+" has too many conversations")
		case !slices.ContainsFunc(out, func(m chat.Member) bool { return m.ID == u.ID }):
			out = append(out, chat.Member{ID: u.ID, Name: u.Name})
		}
	}
	return out, nil
}

// ListConversations gives all where no limit is given: there were no pages at first.
func (s *service) ListConversations(ctx context.Context, in *chatv1.ListConversationsRequest) (*chatv1.ListConversationsResponse, error) {
	after, limit, err := page(in.GetAfter(), in.Limit)
	if err != nil {
		return nil, err
	}
	if in.Limit == nil {
		limit = math.MaxInt
	}
	list, err := s.deps.Conversations.Conversations(ctx, caller(ctx).User.ID, after, limit)
	if err != nil {
		return nil, err
	}
	out := &chatv1.ListConversationsResponse{Next: nextOf(len(list), limit, func() string { return list[len(list)-1].ID })}
	for _, c := range list {
		out.Conversations = append(out.Conversations, conversationOf(c))
	}
	return out, nil
}

func (s *service) GetConversation(ctx context.Context, in *chatv1.GetConversationRequest) (*chatv1.GetConversationResponse, error) {
	c, err := s.own(ctx, in.GetConversation())
	if err != nil {
		return nil, err
	}
	return &chatv1.GetConversationResponse{Conversation: conversationOf(c)}, nil
}

// own is a conversation of which the caller must be a member.
func (s *service) own(ctx context.Context, conversation string) (chat.Conversation, error) {
	if err := chat.CheckConversationID("conversation", conversation); err != nil {
		return chat.Conversation{}, err
	}
	c, err := s.deps.Conversations.Conversation(ctx, caller(ctx).User.ID, conversation)
	if errors.Is(err, chat.ErrNotFound) {
		return c, chat.NoConversation()
	}
	return c, err
}

func (s *service) MuteConversation(ctx context.Context, in *chatv1.MuteConversationRequest) (*chatv1.MuteConversationResponse, error) {
	if in.Muted == nil {
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "muted", "muted must be true or false")
	}
	if err := chat.CheckConversationID("conversation", in.GetConversation()); err != nil {
		return nil, err
	}
	err := s.deps.Conversations.Mute(ctx, caller(ctx).User.ID, in.GetConversation(), in.GetMuted())
	if errors.Is(err, chat.ErrNotFound) {
		return nil, chat.NoConversation()
	}
	if err != nil {
		return nil, err
	}
	c, err := s.own(ctx, in.GetConversation())
	if err != nil {
		return nil, err
	}
	return &chatv1.MuteConversationResponse{Conversation: conversationOf(c)}, nil
}

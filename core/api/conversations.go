package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// conversation is a conversation on the wire.
type conversation struct {
	ID      string   `json:"id"`
	Kind    string   `json:"kind"`              // direct or group
	Name    string   `json:"name,omitempty"`    // of a group
	Members []string `json:"members,omitempty"` // names, of a direct one
	Count   int      `json:"member_count"`
	Role    string   `json:"role"` // the caller's
	LastSeq int64    `json:"last_seq"`
	Read    int64    `json:"read"`   // seq
	Unread  int      `json:"unread"` // messages of others; stops counting at chat.MaxUnread
	Muted   bool     `json:"muted"`
}

func conversationOf(c chat.Conversation) conversation {
	out := conversation{ID: c.ID, Kind: "direct", Name: c.Name, Count: c.Count, Role: c.Role.String(), LastSeq: c.LastSeq, Read: c.Read, Unread: c.Unread, Muted: c.Muted}
	if c.Group {
		out.Kind = "group"
	}
	for _, m := range c.Members {
		out.Members = append(out.Members, m.Name)
	}
	return out
}

// newConversation asks for a direct conversation (With) or a group (the others).
type newConversation struct {
	With     string   `json:"with"`
	Name     string   `json:"name"`
	Members  []string `json:"members"`
	ClientID string   `json:"client_id"` // makes repeating it safe; may be left out
}

func (s *server) postConversation(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	var in newConversation
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	switch group := in.Name != "" || in.Members != nil || in.ClientID != ""; {
	case group && in.With != "":
		return protocol.NewError(protocol.CodeInvalidArgument, "with", "with is for a direct conversation, name and members are for a group")
	case group:
		return s.createGroup(w, r, id, in)
	default:
		return s.openDirect(w, r, id, in.With)
	}
}

func (s *server) openDirect(w http.ResponseWriter, r *http.Request, id account.Identity, with string) error {
	if err := chat.CheckName("with", with); err != nil {
		return err
	}
	if with == id.User.Name {
		return protocol.NewError(protocol.CodeInvalidArgument, "with", "with must be someone else")
	}
	other, err := s.deps.Conversations.User(r.Context(), with)
	if errors.Is(err, chat.ErrNotFound) {
		return protocol.NewError(protocol.CodeNotFound, "with", "there is no such user")
	}
	if err != nil {
		return err
	}
	fresh, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("new conversation id: %w", err)
	}
	c, err := s.deps.Conversations.Direct(r.Context(), fresh.String(), id.User, other, s.cfg.Conversations, s.deps.Now())
	if err != nil {
		return creation(err, "with")
	}
	return write(w, http.StatusOK, conversationOf(c))
}

// creation translates what a store says to a new conversation.
func creation(err error, field string) error {
	switch {
	case errors.Is(err, chat.ErrLimit):
		return protocol.NewError(protocol.CodePermissionDenied, field, "one of you has too many conversations")
	case errors.Is(err, chat.ErrUnstorable): // the token's user is not in this database
		return protocol.NewError(protocol.CodeUnauthenticated, "", "your user does not exist any more")
	default:
		return err
	}
}

func (s *server) createGroup(w http.ResponseWriter, r *http.Request, id account.Identity, in newConversation) error {
	if err := chat.CheckGroupName(in.Name); err != nil {
		return err
	}
	members, err := s.members(r.Context(), id, slices.DeleteFunc(in.Members, func(name string) bool { return name == id.User.Name }))
	if err != nil {
		return err
	}
	conversation, err := groupID(id.User.ID, in.ClientID)
	if err != nil {
		return err
	}
	first, fresh, err := s.deps.Conversations.Group(r.Context(), chat.Record{
		Conversation: conversation, ClientID: "created." + conversation, SenderID: id.User.ID, Sender: id.User.Name,
		SentAt: s.now(), TraceID: traceID(r), Members: members, Name: in.Name,
	}, s.cfg.Conversations)
	if err != nil {
		return creation(err, "members")
	}
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
		s.deps.Announcer.Announce(first)
	}
	c, err := s.deps.Conversations.Conversation(r.Context(), id.User.ID, conversation)
	if err != nil {
		return err
	}
	return write(w, status, conversationOf(c))
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
func (s *server) members(ctx context.Context, id account.Identity, names []string) ([]chat.Member, error) {
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
	full, err := s.deps.Conversations.Full(ctx, ids, s.cfg.Conversations)
	if err != nil {
		return nil, err
	}
	blockers, err := s.deps.Blocks.Blockers(ctx, ids, id.User.ID)
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

func (s *server) getConversations(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	list, err := s.deps.Conversations.Conversations(r.Context(), id.User.ID)
	if err != nil {
		return err
	}
	out := make([]conversation, 0, len(list))
	for _, c := range list {
		out = append(out, conversationOf(c))
	}
	return write(w, http.StatusOK, map[string]any{"conversations": out})
}

func (s *server) getConversation(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	c, err := s.own(r, id)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, conversationOf(c))
}

// own is the conversation of the path, of which the caller must be a member.
func (s *server) own(r *http.Request, id account.Identity) (chat.Conversation, error) {
	conversation := r.PathValue("id")
	if err := chat.CheckConversationID("conversation", conversation); err != nil {
		return chat.Conversation{}, err
	}
	c, err := s.deps.Conversations.Conversation(r.Context(), id.User.ID, conversation)
	if errors.Is(err, chat.ErrNotFound) {
		return c, chat.NoConversation()
	}
	return c, err
}

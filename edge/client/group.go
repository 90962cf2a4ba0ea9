package client

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tracegate/tracegate/core/protocol"
)

// Member is a member of a conversation.
type Member struct {
	Name      string `json:"name"`
	Role      string `json:"role"` // member, admin or owner
	Read      int64  `json:"read"` // seq up to which it has read
	Delivered int64  `json:"delivered"`
}

// Members is a page of a conversation's members. Next is what the next page comes after;
// empty on the last one.
type Members struct {
	Members []Member `json:"members"`
	Next    string   `json:"next"`
}

// CreateGroup makes a group of the user, its owner, and others (names). Repeated under
// the same client id it is the same group.
func (u *User) CreateGroup(ctx context.Context, clientID, name string, members ...string) (Conversation, Served, error) {
	var out Conversation
	served, err := u.do(ctx, call{
		op: "create group", method: http.MethodPost, path: "/v1/conversations", key: clientID, out: &out,
		in: map[string]any{"client_id": clientID, "name": name, "members": members},
	})
	return out, served, err
}

// Conversation asks for one conversation of the user's.
func (u *User) Conversation(ctx context.Context, id string) (Conversation, Served, error) {
	var out Conversation
	served, err := u.do(ctx, call{op: "conversation", method: http.MethodGet, path: conversationPath(id), out: &out})
	return out, served, err
}

// Members lists up to limit members after Next of the page before; empty for the first.
func (u *User) Members(ctx context.Context, conversation, after string, limit int) (Members, Served, error) {
	var out Members
	q := url.Values{"after": {after}, "limit": {strconv.Itoa(limit)}}
	served, err := u.do(ctx, call{
		op: "members", method: http.MethodGet, path: conversationPath(conversation, "members") + "?" + q.Encode(), out: &out,
	})
	return out, served, err
}

// AddMembers adds people to a group. As with the other changes, accepted means that it is
// in the conversation's log; it takes effect with the entry that has the client id of the
// answer, unless it was so already. Those who are members are left out.
func (u *User) AddMembers(ctx context.Context, conversation string, names ...string) (protocol.Accepted, Served, error) {
	id := rand.Text()
	return u.accept(ctx, call{
		op: "add members", method: http.MethodPost, key: id, path: conversationPath(conversation, "members"),
		in: map[string]any{"members": names, "client_id": id},
	})
}

// RemoveMember removes somebody, or the user itself, from a group. Who is not a member
// is not_found, unless an attempt of this call may have been what removed it.
func (u *User) RemoveMember(ctx context.Context, conversation, name string) (protocol.Accepted, Served, error) {
	id := rand.Text()
	a, served, err := u.accept(ctx, call{
		op: "remove member", method: http.MethodDelete, path: conversationPath(conversation, "members", name) + "?client_id=" + id,
	})
	if e, ok := errors.AsType[*protocol.Error](err); ok && e.Code == protocol.CodeNotFound && errors.Is(err, ErrUnknownOutcome) {
		return protocol.Accepted{ClientID: "removed." + id}, served, nil
	}
	return a, served, err
}

// Leave removes the user itself.
func (u *User) Leave(ctx context.Context, conversation string) (protocol.Accepted, Served, error) {
	return u.RemoveMember(ctx, conversation, u.profile.Name)
}

// SetRole gives a member a role; giving owner away makes the user an admin.
func (u *User) SetRole(ctx context.Context, conversation, name, role string) (protocol.Accepted, Served, error) {
	return u.accept(ctx, call{
		op: "set role", method: http.MethodPut, path: conversationPath(conversation, "members", name),
		in: map[string]string{"role": role, "client_id": rand.Text()},
	})
}

// Rename gives a group another name.
func (u *User) Rename(ctx context.Context, conversation, name string) (protocol.Accepted, Served, error) {
	return u.accept(ctx, call{
		op: "rename", method: http.MethodPatch, path: conversationPath(conversation),
		in: map[string]string{"name": name, "client_id": rand.Text()},
	})
}

// SetOpen says whether anybody may join a group.
func (u *User) SetOpen(ctx context.Context, conversation string, open bool) (protocol.Accepted, Served, error) {
	return u.accept(ctx, call{
		op: "set open", method: http.MethodPatch, path: conversationPath(conversation),
		in: map[string]any{"open": open, "client_id": rand.Text()},
	})
}

// Join makes the user a member of an open group.
func (u *User) Join(ctx context.Context, conversation string) (protocol.Accepted, Served, error) {
	id := rand.Text()
	return u.accept(ctx, call{
		op: "join", method: http.MethodPost, key: id, path: conversationPath(conversation, "join"),
		in: map[string]string{"client_id": id},
	})
}

// Mark says how far the user has read, and how far this device has got; see protocol.Mark.
// The positions are durable when it returns without an error.
func (u *User) Mark(ctx context.Context, m protocol.Mark) (protocol.Receipt, Served, error) {
	var out protocol.Receipt
	served, err := u.do(ctx, call{
		op: "mark", method: http.MethodPut, path: conversationPath(m.Conversation, "receipt"), out: &out,
		in: map[string]int64{"read": m.Read, "delivered": m.Delivered},
	})
	return out, served, err
}

// Mute says whether the user wants to hear of a conversation.
func (u *User) Mute(ctx context.Context, conversation string, muted bool) (Conversation, Served, error) {
	var out Conversation
	served, err := u.do(ctx, call{
		op: "mute", method: http.MethodPut, path: conversationPath(conversation, "mute"), out: &out,
		in: map[string]bool{"muted": muted},
	})
	return out, served, err
}

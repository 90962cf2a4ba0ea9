package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// Profile is what core tells about a user.
type Profile struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Tenant string `json:"tenant"`
	Online *bool  `json:"online,omitempty"` // nil: not known

	DisplayName string `json:"display_name,omitempty"`
	Avatar      string `json:"avatar,omitempty"` // an https URL, or the id of a file
	About       string `json:"about,omitempty"`
}

// Me is the caller and the traffic that its request was taken for.
type Me struct {
	User    Profile `json:"user"`
	Group   string  `json:"group"`
	Color   string  `json:"color"`
	Env     string  `json:"env"`
	Tenant  string  `json:"tenant"`
	Pool    string  `json:"pool"`
	Node    string  `json:"node"`
	TraceID string  `json:"trace_id"`
}

// Conversation is a conversation the user is a member of.
type Conversation struct {
	ID      string   `json:"id"`
	Kind    string   `json:"kind"`         // direct or group
	Name    string   `json:"name"`         // of a group
	Members []string `json:"members"`      // of a direct one; a group's are paged by Members
	Count   int      `json:"member_count"` // of members
	Role    string   `json:"role"`         // the user's: member, admin or owner
	LastSeq int64    `json:"last_seq"`     // of the newest stored entry
	Read    int64    `json:"read"`         // seq up to which the user has read
	Unread  int      `json:"unread"`       // messages of others after that; 100 means 100 or more
	Muted   bool     `json:"muted"`
	Open    bool     `json:"open"` // of a group: anybody may join it
}

// Page is a part of a conversation's history, in seq order.
type Page struct {
	Messages []protocol.Message `json:"messages"`
	Epoch    string             `json:"epoch"`
}

// User is a user with a session of core. It is safe for concurrent use.
type User struct {
	c       *Client
	profile Profile
	tokens  *tokens
}

// Register makes a user. It is not repeated when its outcome is unknown: the name
// may be taken by then, by this very call.
func (c *Client) Register(ctx context.Context, name, password string) (Profile, Served, error) {
	var p Profile
	served, err := c.do(ctx, call{
		op: "register", method: http.MethodPost, path: "/v1/users", out: &p,
		in: map[string]string{"name": name, "password": password},
	})
	return p, served, err
}

// Login opens a session of core for the user, on Config.Device. Repeating it is harmless: a
// session that nobody uses ends by itself.
func (c *Client) Login(ctx context.Context, name, password string) (*User, Served, error) {
	var out grant
	served, err := c.do(ctx, call{
		op: "login", method: http.MethodPost, path: "/v1/sessions", out: &out, key: name,
		in: map[string]string{"name": name, "password": password, "device": c.cfg.Device},
	})
	if err != nil {
		return nil, served, err
	}
	return &User{c: c, profile: out.User, tokens: &tokens{now: out, got: time.Now()}}, served, nil
}

// At is the same user and session at another edge, or with another configuration.
func (u *User) At(c *Client) *User {
	v := *u
	v.c = c
	return &v
}

// Profile is the user as core knew it at the log-in.
func (u *User) Profile() Profile { return u.profile }

// Me asks what core sees of this user's requests.
func (u *User) Me(ctx context.Context) (Me, Served, error) {
	var m Me
	served, err := u.do(ctx, call{op: "me", method: http.MethodGet, path: "/v1/me", out: &m})
	return m, served, err
}

// Lookup finds a user by name.
func (u *User) Lookup(ctx context.Context, name string) (Profile, Served, error) {
	var p Profile
	served, err := u.do(ctx, call{
		op: "lookup", method: http.MethodGet, path: "/v1/users/" + url.PathEscape(name), out: &p,
	})
	return p, served, err
}

// Open gives the direct conversation with another user, and makes it if need be.
func (u *User) Open(ctx context.Context, with string) (Conversation, Served, error) {
	var out Conversation
	served, err := u.do(ctx, call{
		op: "open", method: http.MethodPost, path: "/v1/conversations", key: with, out: &out,
		in: map[string]string{"with": with},
	})
	return out, served, err
}

// Conversations lists what the user is a member of.
func (u *User) Conversations(ctx context.Context) ([]Conversation, Served, error) {
	var out struct {
		Conversations []Conversation `json:"conversations"`
	}
	served, err := u.do(ctx, call{
		op: "conversations", method: http.MethodGet, path: "/v1/conversations", out: &out,
	})
	return out.Conversations, served, err
}

// Send sends a message by REST; it is durable when Send returns without an error.
// ClientID must be unique among what the sender sends: it is what makes repeating safe.
func (u *User) Send(ctx context.Context, m protocol.Send) (protocol.Accepted, Served, error) {
	in := map[string]any{"client_id": m.ClientID, "text": m.Text}
	if m.ReplyTo != 0 {
		in["reply_to"] = m.ReplyTo
	}
	if m.File != "" {
		in["file"] = m.File
	}
	return u.accept(ctx, call{op: "send", method: http.MethodPost, key: m.ClientID, path: conversationPath(m.Conversation, "messages"), in: in})
}

// Edit replaces the text of a message of the user's own.
func (u *User) Edit(ctx context.Context, m protocol.Edit) (protocol.Accepted, Served, error) {
	return u.accept(ctx, call{
		op: "edit", method: http.MethodPatch, key: m.ClientID, path: conversationPath(m.Conversation, "messages", strconv.FormatInt(m.Seq, 10)),
		in: map[string]string{"client_id": m.ClientID, "text": m.Text},
	})
}

// Recall takes back a message of the user's own or, as an admin of a group, anybody's.
func (u *User) Recall(ctx context.Context, m protocol.Recall) (protocol.Accepted, Served, error) {
	return u.accept(ctx, call{op: "recall", method: http.MethodDelete, path: conversationPath(m.Conversation, "messages", strconv.FormatInt(m.Seq, 10))})
}

// React reacts to a message with an emoji, Unreact takes that back. ClientID must be a new
// one each time: it is what makes repeating safe.
func (u *User) React(ctx context.Context, m protocol.React) (protocol.Accepted, Served, error) {
	return u.accept(ctx, call{op: "react", method: http.MethodPut, path: reactionPath(m), in: map[string]string{"client_id": m.ClientID}})
}

// Unreact is as React.
func (u *User) Unreact(ctx context.Context, m protocol.React) (protocol.Accepted, Served, error) {
	return u.accept(ctx, call{op: "unreact", method: http.MethodDelete, path: reactionPath(m) + "?client_id=" + url.QueryEscape(m.ClientID)})
}

func reactionPath(m protocol.React) string {
	return conversationPath(m.Conversation, "messages", strconv.FormatInt(m.Seq, 10), "reactions", m.Emoji)
}

// accept makes a call that is answered when something is durable in the log.
func (u *User) accept(ctx context.Context, q call) (out protocol.Accepted, served Served, err error) {
	q.out = &out
	served, err = u.do(ctx, q)
	return out, served, err
}

func conversationPath(id string, parts ...string) string {
	path := "/v1/conversations/" + url.PathEscape(id)
	for _, p := range parts {
		path += "/" + url.PathEscape(p)
	}
	return path
}

// History gives up to limit entries after seq; a shorter page than asked for does
// not mean the end, an empty one does.
func (u *User) History(ctx context.Context, conversation string, after int64, limit int) (Page, Served, error) {
	return u.history(ctx, conversation, "after", after, limit)
}

// HistoryBefore gives the newest entries before seq, oldest first; an empty page is the
// beginning of what the user may see.
func (u *User) HistoryBefore(ctx context.Context, conversation string, before int64, limit int) (Page, Served, error) {
	return u.history(ctx, conversation, "before", before, limit)
}

func (u *User) history(ctx context.Context, conversation, from string, seq int64, limit int) (Page, Served, error) {
	var p Page
	q := url.Values{from: {strconv.FormatInt(seq, 10)}, "limit": {strconv.Itoa(limit)}}
	served, err := u.do(ctx, call{
		op: "history", method: http.MethodGet, out: &p, path: conversationPath(conversation, "messages") + "?" + q.Encode(),
	})
	return p, served, err
}

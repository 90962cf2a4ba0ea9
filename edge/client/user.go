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
	Members []string `json:"members"`
	LastSeq int64    `json:"last_seq"` // of the newest stored message
}

// Page is a part of a conversation's history, in seq order.
type Page struct {
	Messages []protocol.Message `json:"messages"`
	Epoch    string             `json:"epoch"`
}

// User is a user with a token. It is safe for concurrent use.
type User struct {
	c       *Client
	profile Profile
	token   string
	expires time.Time
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

// Login opens a session of core for the user. Repeating it is harmless: a token
// nobody has expires by itself.
func (c *Client) Login(ctx context.Context, name, password string) (*User, Served, error) {
	var out struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires_at"`
		User    Profile   `json:"user"`
	}
	served, err := c.do(ctx, call{
		op: "login", method: http.MethodPost, path: "/v1/sessions", out: &out, key: name,
		in: map[string]string{"name": name, "password": password},
	})
	if err != nil {
		return nil, served, err
	}
	return &User{c: c, profile: out.User, token: out.Token, expires: out.Expires}, served, nil
}

// At is the same user and token at another edge, or with another configuration.
func (u *User) At(c *Client) *User {
	v := *u
	v.c = c
	return &v
}

// Profile is the user as core knows it.
func (u *User) Profile() Profile { return u.profile }

// Expires is when the token ends and sessions are closed for good.
func (u *User) Expires() time.Time { return u.expires }

// Logout revokes the token.
func (u *User) Logout(ctx context.Context) error {
	_, err := u.c.do(ctx, call{op: "logout", method: http.MethodDelete, path: "/v1/sessions/current", token: u.token})
	return err
}

// Me asks what core sees of this user's requests.
func (u *User) Me(ctx context.Context) (Me, Served, error) {
	var m Me
	served, err := u.c.do(ctx, call{op: "me", method: http.MethodGet, path: "/v1/me", token: u.token, out: &m})
	return m, served, err
}

// Lookup finds a user by name.
func (u *User) Lookup(ctx context.Context, name string) (Profile, Served, error) {
	var p Profile
	served, err := u.c.do(ctx, call{
		op: "lookup", method: http.MethodGet, path: "/v1/users/" + url.PathEscape(name), token: u.token, out: &p,
	})
	return p, served, err
}

// Open gives the direct conversation with another user, and makes it if need be.
func (u *User) Open(ctx context.Context, with string) (Conversation, Served, error) {
	var out Conversation
	served, err := u.c.do(ctx, call{
		op: "open", method: http.MethodPost, path: "/v1/conversations", token: u.token, key: with, out: &out,
		in: map[string]string{"with": with},
	})
	return out, served, err
}

// Conversations lists what the user is a member of.
func (u *User) Conversations(ctx context.Context) ([]Conversation, Served, error) {
	var out struct {
		Conversations []Conversation `json:"conversations"`
	}
	served, err := u.c.do(ctx, call{
		op: "conversations", method: http.MethodGet, path: "/v1/conversations", token: u.token, out: &out,
	})
	return out.Conversations, served, err
}

// Send sends a message by REST; it is durable when Send returns without an error.
// ClientID must be unique among the sender's messages: it is what makes repeating safe.
func (u *User) Send(ctx context.Context, m protocol.Send) (protocol.Accepted, Served, error) {
	var out protocol.Accepted
	served, err := u.c.do(ctx, call{
		op: "send", method: http.MethodPost, token: u.token, key: m.ClientID, out: &out,
		path: "/v1/conversations/" + url.PathEscape(m.Conversation) + "/messages",
		in:   map[string]string{"client_id": m.ClientID, "text": m.Text},
	})
	return out, served, err
}

// History gives up to limit messages after seq; a shorter page than asked for does
// not mean the end, an empty one does.
func (u *User) History(ctx context.Context, conversation string, after int64, limit int) (Page, Served, error) {
	var p Page
	q := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(limit)}}
	served, err := u.c.do(ctx, call{
		op: "history", method: http.MethodGet, token: u.token, out: &p,
		path: "/v1/conversations/" + url.PathEscape(conversation) + "/messages?" + q.Encode(),
	})
	return p, served, err
}

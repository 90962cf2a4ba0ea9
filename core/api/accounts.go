package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// user is a user on the wire.
type user struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Tenant string `json:"tenant"`
	// Online is left out where presence is not known.
	Online *bool `json:"online,omitempty"`
}

func userOf(u chat.User) user { return user{ID: u.ID, Name: u.Name, Tenant: u.Tenant} }

type credentials struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

func (s *server) postUser(w http.ResponseWriter, r *http.Request) error {
	if err := s.limit(s.register, "register", s.address(r)); err != nil {
		return err
	}
	var in credentials
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	u, err := s.deps.Accounts.Register(r.Context(), in.Name, in.Password, s.traffic(r).Tenant)
	if err != nil {
		return err
	}
	return write(w, http.StatusCreated, userOf(u))
}

func (s *server) postSession(w http.ResponseWriter, r *http.Request) error {
	if err := s.limit(s.loginAddress, "login_address", s.address(r)); err != nil {
		return err
	}
	var in credentials
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	if err := chat.CheckName("name", in.Name); err != nil {
		return err
	}
	if err := s.limit(s.loginName, "login_name", in.Name); err != nil {
		return err
	}
	session, err := s.deps.Accounts.Login(r.Context(), in.Name, in.Password)
	if err != nil {
		return err
	}
	http.SetCookie(w, cookie(r, session.Token, session.ExpiresAt))
	return write(w, http.StatusOK, struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
		User      user      `json:"user"`
	}{session.Token, session.ExpiresAt, userOf(session.User)})
}

// deleteSession needs no valid token: whoever logs out is logged out.
func (s *server) deleteSession(w http.ResponseWriter, r *http.Request) error {
	http.SetCookie(w, cookie(r, "", time.Unix(1, 0)))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// cookie is for the page's scripts to carry, not to read. It is bound to TLS where the
// edge was reached by TLS; on plain loopback a browser would not send it back then.
func cookie(r *http.Request, value string, expires time.Time) *http.Cookie {
	return &http.Cookie{
		Name: Cookie, Value: value, Path: "/", Expires: expires, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	}
}

func (s *server) getUser(w http.ResponseWriter, r *http.Request, _ account.Identity) error {
	name := r.PathValue("name")
	if err := chat.CheckName("name", name); err != nil {
		return err
	}
	u, err := s.deps.Conversations.User(r.Context(), name)
	if errors.Is(err, chat.ErrNotFound) {
		return protocol.NewError(protocol.CodeNotFound, "name", "there is no such user")
	}
	if err != nil {
		return err
	}
	out := userOf(u)
	if n, err := s.deps.Presence.Online(r.Context(), u.ID); err == nil {
		online := n > 0
		out.Online = &online
	}
	return write(w, http.StatusOK, out)
}

func (s *server) getMe(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	g := s.traffic(r)
	return write(w, http.StatusOK, map[string]any{
		"user": userOf(id.User), "group": g.ID(), "color": g.Color.String(), "env": g.Env, "tenant": g.Tenant,
		"pool": s.deps.Pool, "node": s.deps.Node, "trace_id": traceID(r),
	})
}

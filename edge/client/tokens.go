package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// grant is what core answers to a log-in or a refresh.
type grant struct {
	ID             string    `json:"id"`
	Token          string    `json:"token"`
	Expires        time.Time `json:"expires_at"`
	Refresh        string    `json:"refresh_token"`
	RefreshExpires time.Time `json:"refresh_expires_at"`
	User           Profile   `json:"user"`
}

// tokens are those of a session of core, shared by all copies of a User. A refresh token is
// good once, so whoever refreshes holds mu, and others wait for what comes of it.
type tokens struct {
	mu  sync.Mutex
	now grant
	got time.Time
}

func (t *tokens) current() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now.Token
}

// early is how long before its end an access token is replaced, at most; it is a fifth of
// the life of a short one.
const early = 30 * time.Second

// Access returns an access token that is good, as far as this machine's clock knows: one
// that is about to end is replaced before. It is for who dials without [Session]; the token
// is a secret.
func (u *User) Access(ctx context.Context) (string, error) {
	u.tokens.mu.Lock()
	defer u.tokens.mu.Unlock()
	g := u.tokens.now
	left := time.Until(g.Expires)
	if g.Refresh == "" || left > min(early, g.Expires.Sub(u.tokens.got)/5) {
		return g.Token, nil
	}
	err := u.refresh(ctx)
	if err != nil && left > 0 && !isFinal(err) {
		err = nil // it will do for this time
	}
	return u.tokens.now.Token, err
}

// renew replaces the access token, unless it is not the stale one any more.
func (u *User) renew(ctx context.Context, stale string) error {
	u.tokens.mu.Lock()
	defer u.tokens.mu.Unlock()
	if u.tokens.now.Token != stale {
		return nil
	}
	return u.refresh(ctx)
}

// refresh uses the refresh token; mu is held. To repeat it is safe for the moment in which
// it is repeated: core answers a lost answer again.
func (u *User) refresh(ctx context.Context) error {
	if u.tokens.now.Refresh == "" {
		return &protocol.Error{Code: protocol.CodeUnauthenticated, Message: "there is no refresh token"}
	}
	var out grant
	_, err := u.c.do(ctx, call{
		op: "refresh", method: http.MethodPost, path: "/v1/sessions/refresh", key: u.tokens.now.ID, out: &out,
		in: map[string]string{"refresh_token": u.tokens.now.Refresh},
	})
	if err == nil {
		u.tokens.now, u.tokens.got = out, time.Now()
	}
	return err
}

// do makes a call as the user, with a new token where the old one has ended.
func (u *User) do(ctx context.Context, q call) (Served, error) {
	for again := true; ; again = false {
		var err error
		if q.token, err = u.Access(ctx); err != nil {
			return Served{}, err
		}
		served, err := u.c.do(ctx, q)
		if !again || !isUnauthenticated(err) || u.renew(ctx, q.token) != nil {
			return served, err
		}
	}
}

// LoginAgain begins a session of core in place of one that has ended, for all copies of the
// user and their connections.
func (u *User) LoginAgain(ctx context.Context, password string) error {
	v, _, err := u.c.Login(ctx, u.profile.Name, password)
	if err != nil {
		return err
	}
	fresh := v.tokens.now
	u.tokens.mu.Lock()
	defer u.tokens.mu.Unlock()
	u.tokens.now, u.tokens.got = fresh, time.Now()
	return nil
}

func isUnauthenticated(err error) bool {
	e, ok := errors.AsType[*protocol.Error](err)
	return ok && e.Code == protocol.CodeUnauthenticated
}

// isFinal says that asking again cannot help.
func isFinal(err error) bool {
	e, ok := errors.AsType[*protocol.Error](err)
	return ok && !e.Temporary
}

// Token is the access token of this moment, which proves to core who the user is: a secret.
func (u *User) Token() string { return u.tokens.current() }

// Expires is when the session of core ends, unless it is used before.
func (u *User) Expires() time.Time {
	u.tokens.mu.Lock()
	defer u.tokens.mu.Unlock()
	return u.tokens.now.RefreshExpires
}

// Device is a session of core: one log-in on one device.
type Device struct {
	ID      string    `json:"id"`
	Device  string    `json:"device"` // as Config.Device has it
	Created time.Time `json:"created_at"`
	Used    time.Time `json:"used_at"`
	Current bool      `json:"current"` // the one that asks
}

// Devices lists the user's sessions of core, the one that was used last first.
func (u *User) Devices(ctx context.Context) ([]Device, Served, error) {
	var out struct {
		Sessions []Device `json:"sessions"`
	}
	served, err := u.do(ctx, call{op: "devices", method: http.MethodGet, path: "/v1/sessions", out: &out})
	return out.Sessions, served, err
}

// Logout ends the session of core; it holds within a second on all processes, for tokens
// and connections.
func (u *User) Logout(ctx context.Context) error {
	_, err := u.do(ctx, call{op: "logout", method: http.MethodDelete, path: "/v1/sessions/current"})
	return err
}

// LogoutDevice ends another session of the user.
func (u *User) LogoutDevice(ctx context.Context, id string) (Served, error) {
	return u.do(ctx, call{op: "logout device", method: http.MethodDelete, path: "/v1/sessions/" + url.PathEscape(id)})
}

// LogoutAll ends all sessions of the user, this one included.
func (u *User) LogoutAll(ctx context.Context) (Served, error) {
	return u.do(ctx, call{op: "logout all", method: http.MethodDelete, path: "/v1/sessions"})
}

// ChangePassword replaces the password and ends all other sessions.
func (u *User) ChangePassword(ctx context.Context, old, fresh string) (Served, error) {
	return u.do(ctx, call{op: "change password", method: http.MethodPut, path: "/v1/me/password", in: map[string]string{"old": old, "new": fresh}})
}

// ProfileChange is a new profile, where nil is as before.
type ProfileChange struct {
	DisplayName *string `json:"display_name,omitempty"`
	Avatar      *string `json:"avatar,omitempty"`
	About       *string `json:"about,omitempty"`
}

// SetProfile changes the user's profile and returns what it is then.
func (u *User) SetProfile(ctx context.Context, change ProfileChange) (p Profile, served Served, err error) {
	served, err = u.do(ctx, call{op: "set profile", method: http.MethodPatch, path: "/v1/me", in: change, out: &p})
	return p, served, err
}

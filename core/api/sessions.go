package api

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
)

// The refresh token's cookie goes only where it is used.
const (
	refreshCookie = "tracegate_refresh"
	refreshPath   = "/v1/sessions"
)

func (s *service) LogIn(ctx context.Context, in *chatv1.LogInRequest) (*chatv1.LogInResponse, error) {
	if err := s.limitAll(ctx, s.loginAddress, "login_address", callOf(ctx).address); err != nil {
		return nil, err
	}
	if err := chat.CheckName("name", in.GetName()); err != nil {
		return nil, err
	}
	if err := s.limitAll(ctx, s.loginName, "login_name", in.GetName()); err != nil {
		return nil, err
	}
	session, err := s.deps.Accounts.Login(ctx, in.GetName(), in.GetPassword(), in.GetDevice())
	if err != nil {
		return nil, err
	}
	return &chatv1.LogInResponse{Session: begun(ctx, session)}, nil
}

// RefreshSession takes a refresh token of the request or, where that has none, of the cookie.
func (s *service) RefreshSession(ctx context.Context, in *chatv1.RefreshSessionRequest) (*chatv1.RefreshSessionResponse, error) {
	if err := s.limit(s.loginAddress, "login_address", callOf(ctx).address); err != nil {
		return nil, err
	}
	token := in.GetRefreshToken()
	if token == "" {
		token = callOf(ctx).refresh
	}
	session, err := s.deps.Accounts.Refresh(ctx, token)
	if err != nil {
		return nil, err
	}
	return &chatv1.RefreshSessionResponse{Session: begun(ctx, session)}, nil
}

// begun answers with the tokens, and by REST with cookies. A page gets its refresh token
// as a cookie only, which its scripts cannot read.
func begun(ctx context.Context, n account.Session) *chatv1.Session {
	c := callOf(ctx)
	c.cookie(Cookie, "/", n.Token, n.ExpiresAt)
	c.cookie(refreshCookie, refreshPath, n.RefreshToken, n.RefreshExpires)
	out := &chatv1.Session{
		Id: n.ID, Token: n.Token, ExpiresAt: timestamppb.New(n.ExpiresAt), RefreshExpiresAt: timestamppb.New(n.RefreshExpires), User: userOf(n.User),
	}
	if !c.browser {
		out.RefreshToken = &n.RefreshToken
	}
	return out
}

// LogOut needs no valid token: whoever logs out is logged out.
func (s *service) LogOut(ctx context.Context, _ *chatv1.LogOutRequest) (*chatv1.LogOutResponse, error) {
	c := callOf(ctx)
	if err := s.deps.Accounts.Logout(ctx, c.token, c.refresh); err != nil {
		return nil, err
	}
	c.forget()
	return &chatv1.LogOutResponse{}, nil
}

// EndSession logs out one of the caller's devices.
func (s *service) EndSession(ctx context.Context, in *chatv1.EndSessionRequest) (*chatv1.EndSessionResponse, error) {
	if chat.CheckConversationID("id", in.GetId()) != nil {
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "id", "id must be that of a session")
	}
	if err := s.deps.Accounts.End(ctx, caller(ctx), in.GetId()); err != nil {
		return nil, err
	}
	return &chatv1.EndSessionResponse{}, nil
}

// EndSessions logs out all of the caller's devices.
func (s *service) EndSessions(ctx context.Context, _ *chatv1.EndSessionsRequest) (*chatv1.EndSessionsResponse, error) {
	if err := s.deps.Accounts.EndAll(ctx, caller(ctx)); err != nil {
		return nil, err
	}
	callOf(ctx).forget()
	return &chatv1.EndSessionsResponse{}, nil
}

// ListSessions is not paged: their number is bounded, see account.Config.
func (s *service) ListSessions(ctx context.Context, _ *chatv1.ListSessionsRequest) (*chatv1.ListSessionsResponse, error) {
	id := caller(ctx)
	list, err := s.deps.Accounts.Sessions(ctx, id)
	if err != nil {
		return nil, err
	}
	out := &chatv1.ListSessionsResponse{}
	for _, n := range list {
		out.Sessions = append(out.Sessions, &chatv1.Device{
			Id: n.ID, Device: n.Device, CreatedAt: timestamppb.New(n.Created), UsedAt: timestamppb.New(n.Used), Current: n.ID == id.Session,
		})
	}
	return out, nil
}

// ChangePassword is limited as log-ins are, since it tells whether a password is right.
func (s *service) ChangePassword(ctx context.Context, in *chatv1.ChangePasswordRequest) (*chatv1.ChangePasswordResponse, error) {
	id := caller(ctx)
	if err := s.limitAll(ctx, s.loginName, "login_name", id.User.Name); err != nil {
		return nil, err
	}
	if err := s.deps.Accounts.ChangePassword(ctx, id, in.GetOld(), in.GetNew()); err != nil {
		return nil, err
	}
	return &chatv1.ChangePasswordResponse{}, nil
}

// cookie is for the page's scripts to carry, not to read. It is bound to TLS where the
// edge was reached by TLS; on plain loopback a browser would not send it back then. A call
// that is not REST sets none.
func (c *call) cookie(name, path, value string, expires time.Time) {
	if c.setCookie == nil {
		return
	}
	c.setCookie(&http.Cookie{
		Name: name, Value: value, Path: path, Expires: expires, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: c.secure,
	})
}

// forget takes the cookies away.
func (c *call) forget() {
	c.cookie(Cookie, "/", "", time.Unix(1, 0))
	c.cookie(refreshCookie, refreshPath, "", time.Unix(1, 0))
}

func cookieOf(r *http.Request, name string) string {
	if c, err := r.Cookie(name); err == nil {
		return c.Value
	}
	return ""
}

package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Session is what a log-in or a refresh gives.
type Session struct {
	ID             string
	Token          string // access token
	ExpiresAt      time.Time
	RefreshToken   string // good once
	RefreshExpires time.Time
	User           chat.User
}

// Login checks a password and begins a session on a device, which the user may name.
func (s *Service) Login(ctx context.Context, name, password, device string) (Session, error) {
	if err := check(name, password); err != nil {
		return Session{}, err
	}
	if err := chat.CheckDevice(device); err != nil {
		return Session{}, err
	}
	session, err := s.login(ctx, name, password, device)
	return session, s.count("login", err)
}

func (s *Service) login(ctx context.Context, name, password, device string) (Session, error) {
	u, hash, err := s.password(ctx, name, password)
	if err != nil {
		return Session{}, err
	}
	now := s.deps.Now()
	n := chat.Session{ID: uuid.NewString(), UserID: u.ID, Device: device, Created: now, Used: now, Generation: 1}
	ended, err := s.deps.Store.CreateSession(ctx, n, hash, s.cfg.MaxSessions)
	if errors.Is(err, chat.ErrNotFound) { // the password was changed in between
		err = wrong()
	}
	if err != nil {
		return Session{}, err
	}
	s.metrics.sessions.WithLabelValues("begun").Inc()
	s.finish(ended, "limit")
	return s.issue(u, n)
}

// issue makes the tokens of a session.
func (s *Service) issue(u chat.User, n chat.Session) (Session, error) {
	id, err := uuid.Parse(n.ID)
	if err != nil {
		return Session{}, fmt.Errorf("session id: %w", err)
	}
	out := Session{ID: n.ID, User: u, RefreshToken: s.refresh.issue(id, n.Generation), RefreshExpires: n.Used.Add(s.cfg.SessionTTL).UTC().Truncate(time.Second)}
	out.Token, out.ExpiresAt, err = s.tokens.Issue(u, n.ID, out.RefreshExpires, s.deps.Now())
	return out, err
}

// Refresh uses a refresh token. Its successor is the only one that is good then; see
// chat.Session.Rotate.
func (s *Service) Refresh(ctx context.Context, token string) (Session, error) {
	id, generation, err := s.refresh.read(token)
	if err != nil {
		return Session{}, s.count("refresh", err)
	}
	u, n, rotation, err := s.deps.Store.RotateSession(ctx, id.String(), generation, s.deps.Now(), s.cfg.SessionTTL, s.cfg.RefreshGrace)
	if errors.Is(err, chat.ErrNotFound) {
		return Session{}, s.count("refresh", sessionEnded())
	}
	if err != nil {
		return Session{}, s.count("refresh", err)
	}
	if rotation == chat.Reused || rotation == chat.Expired {
		s.finish([]chat.Ended{{ID: n.ID, UserID: n.UserID, At: s.deps.Now()}}, string(rotation))
		return Session{}, s.count("refresh", sessionEnded())
	}
	s.metrics.sessions.WithLabelValues(string(rotation)).Inc()
	out, err := s.issue(u, n)
	return out, s.count("refresh", err)
}

func sessionEnded() error {
	return protocol.NewError(protocol.CodeUnauthenticated, "", "session has ended: log in again")
}

// Sessions are those of a user.
func (s *Service) Sessions(ctx context.Context, id Identity) ([]chat.Session, error) {
	return s.deps.Store.Sessions(ctx, id.User.ID)
}

// End ends one session of a user; none of that id is not_found.
func (s *Service) End(ctx context.Context, id Identity, session string) error {
	list, err := s.deps.Store.EndSession(ctx, id.User.ID, session, s.deps.Now())
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return protocol.NewError(protocol.CodeNotFound, "id", "there is no such session of yours")
	}
	s.finish(list, "logout")
	return nil
}

// EndAll ends all sessions of a user, the one that asks included.
func (s *Service) EndAll(ctx context.Context, id Identity) error {
	list, err := s.deps.Store.EndSessions(ctx, id.User.ID, "", s.deps.Now())
	if err == nil {
		s.finish(list, "logout")
	}
	return err
}

// Logout ends the session of an access token or of a refresh token, whichever is still
// good. Neither being so is no error: whoever logs out is logged out.
func (s *Service) Logout(ctx context.Context, access, refresh string) error {
	var session string
	if id, err := s.tokens.Verify(access, s.deps.Now()); err == nil {
		session = id.Session
	} else if id, _, err := s.refresh.read(refresh); err == nil {
		session = id.String()
	} else {
		return nil
	}
	list, err := s.deps.Store.EndSession(ctx, "", session, s.deps.Now())
	if err == nil {
		s.finish(list, "logout")
	}
	return err
}

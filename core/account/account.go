// Package account knows who a user is: it registers, checks passwords (bcrypt) and
// issues and verifies tokens (JWT, EdDSA over Ed25519), and gives the edge the public
// key to verify them with.
//
// A session is one log-in on one device. It gives access tokens, which are short and are
// verified without a read, and refresh tokens, of which each is good once (refresh.go). A
// session that ends takes its tokens and sockets with it, on all processes within a second
// (ended.go): each remembers for the life of an access token which sessions have ended.
// The alternative, to read the session with each request, costs a read a request for what
// hardly ever happens.
//
// The package does not limit how often someone may try (core/api does), but it bounds how
// many passwords are hashed at a time, so that a login storm cannot starve the sockets of
// its CPUs. Its caller is core/api, and core/session by way of it.
//
// RSA keys and a shared secret lost to Ed25519: Envoy verifies it, a token is 250 bytes
// shorter than with RSA, and a secret that core and every edge share would let any of
// them mint tokens.
package account

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/bcrypt"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Config is how passwords and tokens are made.
type Config struct {
	BcryptCost int           // 4 to 20; each step doubles the time
	Hashers    int           // passwords hashed at a time
	HashQueue  int           // who may wait for a turn; beyond it the answer is unavailable
	HashWait   time.Duration // longest wait for a turn

	TokenTTL     time.Duration // of an access token
	SessionTTL   time.Duration // after which a session that was not refreshed ends
	RefreshGrace time.Duration // in which a client that lost the answer may ask again; 0: it must log in
	MaxSessions  int           // of a user; beyond it the one that was not used for longest ends
	EndedEvery   time.Duration // how often a process looks which sessions others have ended
	Verified     int           // access tokens whose good signature is remembered
}

// DefaultConfig takes some 50 ms of one CPU for a password.
func DefaultConfig() Config {
	return Config{
		BcryptCost: 10, Hashers: 1, HashQueue: 256, HashWait: 5 * time.Second,
		TokenTTL: 15 * time.Minute, SessionTTL: 30 * 24 * time.Hour, RefreshGrace: 10 * time.Second, MaxSessions: 50, EndedEvery: time.Second,
		Verified: 16384, // some 0.4 KB each
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case c.BcryptCost < bcrypt.MinCost || c.BcryptCost > 20:
		return errors.New("bcrypt_cost: must be 4 to 20")
	case c.Hashers < 1:
		return errors.New("hashers: must be at least 1")
	case c.HashQueue < 0:
		return errors.New("hash_queue: must not be negative")
	case c.HashWait <= 0:
		return errors.New("hash_wait: must be positive")
	case c.TokenTTL < time.Second || c.TokenTTL > 24*time.Hour:
		return errors.New("token_ttl: must be 1s to 24h")
	case c.SessionTTL <= c.TokenTTL:
		return errors.New("session_ttl: must be longer than token_ttl")
	case c.RefreshGrace < 0 || c.RefreshGrace > time.Minute:
		return errors.New("refresh_grace: must be 0 to 1m")
	case c.MaxSessions < 1:
		return errors.New("max_sessions: must be at least 1")
	case c.EndedEvery <= 0:
		return errors.New("ended_every: must be positive")
	case c.Verified < 1:
		return errors.New("verified: must be at least 1")
	}
	return nil
}

// Store is where accounts and sessions are kept.
type Store interface {
	// CreateUser answers chat.ErrExists where the name is taken.
	CreateUser(ctx context.Context, u chat.User, hash string, at time.Time) error
	// Credentials answers chat.ErrNotFound where there is no such user.
	Credentials(ctx context.Context, name string) (chat.User, string, error)
	// SetPassword replaces a hash and ends all sessions but one. It answers
	// chat.ErrNotFound where the hash is not the old one any more.
	SetPassword(ctx context.Context, userID, old, hash, except string, at time.Time) ([]chat.Ended, error)
	// CreateSession returns the sessions beyond limit that have ended for the new one. It
	// answers chat.ErrNotFound where the password's hash is another one by now.
	CreateSession(ctx context.Context, n chat.Session, hash string, limit int) ([]chat.Ended, error)
	// RotateSession does in one transaction what chat.Session.Rotate says, and ends the
	// session where that says so. It answers chat.ErrNotFound where there is none.
	RotateSession(ctx context.Context, id string, generation int64, now time.Time, ttl, grace time.Duration) (chat.User, chat.Session, chat.Rotation, error)
	// Sessions are all of a user, the one that was used last first.
	Sessions(ctx context.Context, userID string) ([]chat.Session, error)
	// EndSession ends one, of a user where that is not empty; EndSessions all but one.
	EndSession(ctx context.Context, userID, id string, at time.Time) ([]chat.Ended, error)
	EndSessions(ctx context.Context, userID, except string, at time.Time) ([]chat.Ended, error)
	// EndedSince returns those that have ended at a time or later.
	EndedSince(ctx context.Context, since time.Time) ([]chat.Ended, error)
	// SweepSessions deletes what was last used, and what had ended, before a time.
	SweepSessions(ctx context.Context, used, ended time.Time) error
}

// Deps are what a service works with.
type Deps struct {
	Key     ed25519.PrivateKey // signs; the same for all processes
	Store   Store
	Sockets Sockets
	// Tell makes the processes where a user is connected Look; it must not block.
	Tell       func(userID string)
	Now        func() time.Time
	Registerer prometheus.Registerer
}

// Service registers and logs in. It is safe for concurrent use. Load it before it
// verifies, and run it.
type Service struct {
	cfg      Config
	deps     Deps
	tokens   *Tokens
	verified verified
	refresh  refreshTokens
	ended    ended
	wake     chan struct{}
	gate     *gate
	decoy    func() (string, error) // a hash that no password has
	metrics  metrics
}

// New prepares a service. Its methods return a *protocol.Error for what a client may see;
// everything else is internal.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("account config: %w", err)
	}
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register account metrics: %w", err)
	}
	refresh, err := newRefreshTokens(deps.Key)
	if err != nil {
		return nil, err
	}
	tokens := NewTokens(deps.Key, cfg.TokenTTL)
	verified, err := newVerified(tokens, cfg.Verified)
	if err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, deps: deps, metrics: m, refresh: refresh,
		tokens: tokens, verified: verified,
		ended: ended{at: map[string]time.Time{}}, wake: make(chan struct{}, 1),
		gate: newGate(cfg.Hashers, cfg.HashQueue, cfg.HashWait),
		decoy: sync.OnceValues(func() (string, error) {
			h, err := bcrypt.GenerateFromPassword([]byte(uuid.NewString()), cfg.BcryptCost)
			return string(h), err
		}),
	}, nil
}

// Register creates a user in a tenant.
func (s *Service) Register(ctx context.Context, name, password, tenant string) (chat.User, error) {
	if err := check(name, password); err != nil {
		return chat.User{}, err
	}
	// Asked before the costly hash; the insert below decides.
	if _, _, err := s.deps.Store.Credentials(ctx, name); err == nil {
		return chat.User{}, s.count("register", taken())
	} else if !errors.Is(err, chat.ErrNotFound) {
		return chat.User{}, err
	}
	hash, err := s.hash(ctx, password)
	if err != nil {
		return chat.User{}, s.count("register", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return chat.User{}, fmt.Errorf("new user id: %w", err)
	}
	u := chat.User{ID: id.String(), Name: name, Tenant: tenant}
	err = s.deps.Store.CreateUser(ctx, u, hash, s.deps.Now())
	if errors.Is(err, chat.ErrExists) {
		err = taken()
	}
	if err = s.count("register", err); err != nil {
		return chat.User{}, err
	}
	return u, nil
}

// password checks a user's password and returns the user with the hash that it matches. An
// unknown user and a wrong password take the same time and give the same answer.
func (s *Service) password(ctx context.Context, name, password string) (chat.User, string, error) {
	u, hash, err := s.deps.Store.Credentials(ctx, name)
	unknown := errors.Is(err, chat.ErrNotFound)
	if unknown {
		hash, err = s.decoy()
	}
	if err != nil {
		return u, "", err
	}
	match, err := s.compare(ctx, hash, password)
	if err == nil && (unknown || !match) {
		err = wrong()
	}
	return u, hash, err
}

func wrong() error {
	return protocol.NewError(protocol.CodeUnauthenticated, "", "name or password is wrong")
}

// ChangePassword replaces the password of a user who knows the old one, and ends all of
// its sessions but the one that asks.
func (s *Service) ChangePassword(ctx context.Context, id Identity, old, fresh string) error {
	if err := chat.CheckPassword(old); err != nil {
		return protocol.NewError(protocol.CodeInvalidArgument, "old", "old "+strings.TrimPrefix(err.Message, "password "))
	}
	if err := chat.CheckPassword(fresh); err != nil {
		return protocol.NewError(protocol.CodeInvalidArgument, "new", "new "+strings.TrimPrefix(err.Message, "password "))
	}
	return s.count("password", s.changePassword(ctx, id, old, fresh))
}

func (s *Service) changePassword(ctx context.Context, id Identity, old, fresh string) error {
	u, hash, err := s.password(ctx, id.User.Name, old)
	if e, ok := errors.AsType[*protocol.Error](err); ok && e.Code == protocol.CodeUnauthenticated || err == nil && u.ID != id.User.ID {
		return protocol.NewError(protocol.CodePermissionDenied, "old", "old is not your password")
	}
	if err != nil {
		return err
	}
	next, err := s.hash(ctx, fresh)
	if err != nil {
		return err
	}
	list, err := s.deps.Store.SetPassword(ctx, u.ID, hash, next, id.Session, s.deps.Now())
	if errors.Is(err, chat.ErrNotFound) { // another change was first
		return protocol.NewError(protocol.CodePermissionDenied, "old", "old is not your password")
	}
	if err != nil {
		return err
	}
	s.finish(list, "password")
	return nil
}

// Verify returns whom a token was issued to, unless its session has ended. Its error is a
// *protocol.Error.
func (s *Service) Verify(token string) (Identity, error) {
	id, err := s.verified.Verify(token, s.deps.Now())
	return s.unlessEnded(id, err)
}

// VerifyOnce is Verify for a token that is not expected again soon, that of a connection:
// it is not remembered.
func (s *Service) VerifyOnce(token string) (Identity, error) {
	id, err := s.tokens.Verify(token, s.deps.Now())
	return s.unlessEnded(id, err)
}

func (s *Service) unlessEnded(id Identity, err error) (Identity, error) {
	if err == nil && s.Ended(id.Session) {
		err = sessionEnded()
	}
	return id, err
}

// Ended says whether a session has ended, as far as this process knows.
func (s *Service) Ended(session string) bool { return s.ended.has(session) }

func (s *Service) hash(ctx context.Context, password string) (string, error) {
	leave, err := s.gate.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	h, err := bcrypt.GenerateFromPassword([]byte(password), s.cfg.BcryptCost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return string(h), nil
}

func (s *Service) compare(ctx context.Context, hash, password string) (bool, error) {
	leave, err := s.gate.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	err = bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	if err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return false, fmt.Errorf("compare password: %w", err)
	}
	return err == nil, nil
}

func check(name, password string) error {
	if err := chat.CheckName("name", name); err != nil {
		return err
	}
	if err := chat.CheckPassword(password); err != nil {
		return err
	}
	return nil
}

func taken() error {
	return protocol.NewError(protocol.CodeAlreadyExists, "name", "name is taken")
}

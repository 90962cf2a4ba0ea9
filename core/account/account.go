// Package account knows who a user is: it registers, checks passwords (bcrypt) and
// issues and verifies tokens (JWT, EdDSA over Ed25519), and gives the edge the public
// key to verify them with.
//
// It keeps no session state: a token is valid until it expires, and logging out only
// forgets the cookie. It does not limit how often someone may try (core/api does), but
// it bounds how many passwords are hashed at a time, so that a login storm cannot
// starve the sockets of its CPUs. Its caller is core/api, and core/session by way of it.
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
	TokenTTL   time.Duration
}

// DefaultConfig takes some 50 ms of one CPU for a password.
func DefaultConfig() Config {
	return Config{BcryptCost: 10, Hashers: 1, HashQueue: 256, HashWait: 5 * time.Second, TokenTTL: 12 * time.Hour}
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
	case c.TokenTTL < time.Minute:
		return errors.New("token_ttl: must be at least 1m")
	}
	return nil
}

// Users is where accounts are kept.
type Users interface {
	// CreateUser answers chat.ErrExists where the name is taken.
	CreateUser(ctx context.Context, u chat.User, hash string, at time.Time) error
	// Credentials answers chat.ErrNotFound where there is no such user.
	Credentials(ctx context.Context, name string) (chat.User, string, error)
}

// Service registers and logs in. It is safe for concurrent use.
type Service struct {
	cfg     Config
	users   Users
	tokens  *Tokens
	gate    *gate
	now     func() time.Time
	decoy   func() (string, error) // a hash that no password has
	metrics metrics
}

// New prepares a service that signs with key. Its methods return a *protocol.Error for
// what a client may see; everything else is internal.
func New(cfg Config, key ed25519.PrivateKey, users Users, now func() time.Time, reg prometheus.Registerer) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("account config: %w", err)
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("register account metrics: %w", err)
	}
	return &Service{
		cfg: cfg, users: users, now: now, metrics: m,
		tokens: NewTokens(key, cfg.TokenTTL),
		gate:   newGate(cfg.Hashers, cfg.HashQueue, cfg.HashWait),
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
	if _, _, err := s.users.Credentials(ctx, name); err == nil {
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
	err = s.users.CreateUser(ctx, u, hash, s.now())
	if errors.Is(err, chat.ErrExists) {
		err = taken()
	}
	if err = s.count("register", err); err != nil {
		return chat.User{}, err
	}
	return u, nil
}

// Session is a successful login.
type Session struct {
	Token     string
	ExpiresAt time.Time
	User      chat.User
}

// Login checks a password. An unknown user and a wrong password take the same time and
// give the same answer.
func (s *Service) Login(ctx context.Context, name, password string) (Session, error) {
	if err := check(name, password); err != nil {
		return Session{}, err
	}
	u, hash, err := s.users.Credentials(ctx, name)
	unknown := errors.Is(err, chat.ErrNotFound)
	if unknown {
		hash, err = s.decoy()
	}
	if err != nil {
		return Session{}, err
	}
	match, err := s.compare(ctx, hash, password)
	if err != nil {
		return Session{}, s.count("login", err)
	}
	if unknown || !match {
		return Session{}, s.count("login", protocol.NewError(protocol.CodeUnauthenticated, "", "name or password is wrong"))
	}
	token, expires, err := s.tokens.Issue(u, s.now())
	if err = s.count("login", err); err != nil {
		return Session{}, err
	}
	return Session{Token: token, ExpiresAt: expires, User: u}, nil
}

// Verify returns whom a token was issued to. Its error is a *protocol.Error.
func (s *Service) Verify(token string) (Identity, error) { return s.tokens.Verify(token, s.now()) }

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

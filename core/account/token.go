package account

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Issuer is the iss claim of every token.
const Issuer = "tracegate"

// Identity is what a valid token says.
type Identity struct {
	User        chat.User
	Session     string
	TokenID     string
	ExpiresAt   time.Time
	SessionEnds time.Time // where it is not refreshed after this token
}

// Tokens issues and verifies tokens. It is safe for concurrent use.
type Tokens struct {
	key ed25519.PrivateKey
	kid string
	ttl time.Duration
}

// NewTokens signs with key.
func NewTokens(key ed25519.PrivateKey, ttl time.Duration) *Tokens {
	return &Tokens{key: key, kid: KeyID(public(key)), ttl: ttl}
}

// claims are RFC 7519's, the session id of OpenID Connect (Back-Channel Logout, 2.1) and
// ours; the edge's policy may match on tenant.
type claims struct {
	jwt.RegisteredClaims
	Name        string           `json:"name"`
	Tenant      string           `json:"tenant"`
	Session     string           `json:"sid"`
	SessionEnds *jwt.NumericDate `json:"session_exp"`
}

// Issue makes an access token for a user's session, which ends at a time if it is not
// refreshed.
func (t *Tokens) Issue(u chat.User, session string, ends, now time.Time) (token string, expires time.Time, err error) {
	expires = now.Add(t.ttl).Truncate(time.Second)
	j := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: Issuer, Subject: u.ID, ID: uuid.NewString(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
		},
		Name: u.Name, Tenant: u.Tenant, Session: session, SessionEnds: jwt.NewNumericDate(ends),
	})
	j.Header["kid"] = t.kid
	token, err = j.SignedString(t.key)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign token: %w", err)
	}
	return token, expires, nil
}

// Verify returns what a token says, or a *protocol.Error. Only EdDSA is accepted,
// whatever the token's header asks for.
func (t *Tokens) Verify(token string, now time.Time) (Identity, error) {
	if len(token) > 4096 {
		return Identity{}, protocol.NewError(protocol.CodeUnauthenticated, "", "token is not valid")
	}
	var c claims
	_, err := jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return public(t.key), nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(Issuer), jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(func() time.Time { return now }))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return Identity{}, protocol.NewError(protocol.CodeUnauthenticated, "", "token has expired")
	case err != nil || c.Subject == "" || c.Session == "" || c.SessionEnds == nil || chat.CheckName("name", c.Name) != nil:
		return Identity{}, protocol.NewError(protocol.CodeUnauthenticated, "", "token is not valid")
	}
	return Identity{
		User:    chat.User{ID: c.Subject, Name: c.Name, Tenant: c.Tenant},
		Session: c.Session, TokenID: c.ID, ExpiresAt: c.ExpiresAt.Time, SessionEnds: c.SessionEnds.Time,
	}, nil
}

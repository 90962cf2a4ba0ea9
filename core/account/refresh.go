package account

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	"github.com/tracegate/tracegate/core/protocol"
)

// refreshTokens makes and reads refresh tokens: session id, generation and a MAC over
// both. So the store keeps a number and nothing that could be used, a token that was made
// up costs no read and ends nobody's session, and the next token can be given twice
// without being kept (see chat.Session.Rotate).
type refreshTokens struct{ key []byte }

const refreshBody = 16 + 8

// newRefreshTokens derives the MAC's key (RFC 5869) from the one that signs access tokens:
// one secret to keep for all processes.
func newRefreshTokens(key ed25519.PrivateKey) (refreshTokens, error) {
	k, err := hkdf.Key(sha256.New, key.Seed(), nil, "tracegate refresh token 1", sha256.Size)
	if err != nil {
		return refreshTokens{}, fmt.Errorf("derive refresh key: %w", err)
	}
	return refreshTokens{k}, nil
}

func (r refreshTokens) issue(session uuid.UUID, generation int64) string {
	b := binary.BigEndian.AppendUint64(session[:], uint64(generation))
	return base64.RawURLEncoding.EncodeToString(r.seal(b))
}

func (r refreshTokens) seal(body []byte) []byte {
	h := hmac.New(sha256.New, r.key)
	h.Write(body)
	return h.Sum(body)
}

// read returns what a token says, or a *protocol.Error where we have not made it.
func (r refreshTokens) read(token string) (session uuid.UUID, generation int64, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != refreshBody+sha256.Size || !hmac.Equal(b, r.seal(b[:refreshBody:refreshBody])) {
		return session, 0, protocol.NewError(protocol.CodeUnauthenticated, "refresh_token", "refresh token is not valid")
	}
	return uuid.UUID(b[:16]), int64(binary.BigEndian.Uint64(b[16:])), nil
}

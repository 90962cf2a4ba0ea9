package account

import (
	"crypto/sha256"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// verified remembers tokens whose signature was good, the ones used last. A signature
// costs more than all else of a small request, and does not change; that a token expires
// and its session ends is asked each time. Tokens are known by their digests, so none is
// kept and none can be found out by timing. What is refused is not remembered, or garbage
// would push out what is good.
type verified struct {
	tokens *Tokens
	known  *lru.Cache[[sha256.Size]byte, Identity]
}

// newVerified remembers size tokens.
func newVerified(tokens *Tokens, size int) (verified, error) {
	known, err := lru.New[[sha256.Size]byte, Identity](size)
	return verified{tokens, known}, err
}

// Verify is Tokens.Verify.
func (v verified) Verify(token string, now time.Time) (Identity, error) {
	digest := sha256.Sum256([]byte(token))
	if id, ok := v.known.Get(digest); ok && now.Before(id.ExpiresAt) {
		return id, nil
	}
	id, err := v.tokens.Verify(token, now)
	if err == nil {
		v.known.Add(digest, id)
	}
	return id, err
}

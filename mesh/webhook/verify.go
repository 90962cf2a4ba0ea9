package webhook

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tracegate/tracegate/mesh/secret"
)

// Headers of a signed message (Standard Webhooks).
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

// Verifier checks messages that others sign as this package signs its own. A message is
// taken once, and only around its time. It is safe for concurrent use.
type Verifier struct {
	key []byte
	// Window is how far a message's time may be from ours, and how long its id is
	// remembered.
	window time.Duration
	most   int // ids that are remembered

	mu   sync.Mutex
	seen map[string]time.Time
}

// ErrReplayed is a message whose id was seen before.
var ErrReplayed = errors.New("the message was taken before")

const (
	verifyWindow = 5 * time.Minute
	verifyMost   = 10_000
	maxMessageID = 128
)

// NewVerifier wants a secret of [NewSecret]'s form.
func NewVerifier(s secret.Text) (*Verifier, error) {
	key, err := Key(s)
	if err != nil {
		return nil, err
	}
	return &Verifier{key: key, window: verifyWindow, most: verifyMost, seen: map[string]time.Time{}}, nil
}

// Verify says why a message cannot be taken. Where it returns nil, the message's id is
// remembered: the same message is not taken again.
func (v *Verifier) Verify(h http.Header, body []byte, now time.Time) (id string, err error) {
	id = h.Get(headerID)
	if id == "" || len(id) > maxMessageID {
		return "", fmt.Errorf("%s: not 1 to %d bytes", headerID, maxMessageID)
	}
	seconds, err := strconv.ParseInt(h.Get(headerTimestamp), 10, 64)
	if err != nil {
		return "", fmt.Errorf("%s: not a time in seconds", headerTimestamp)
	}
	at := time.Unix(seconds, 0)
	if off := now.Sub(at).Abs(); off > v.window {
		return "", fmt.Errorf("%s: %v away from now, more than %v", headerTimestamp, off.Round(time.Second), v.window)
	}
	want, ok := []byte(Sign(v.key, id, at, body)), false
	for one := range strings.FieldsSeq(h.Get(headerSignature)) { // several while a key is changed
		ok = hmac.Equal([]byte(one), want) || ok
	}
	if !ok {
		return "", fmt.Errorf("%s: of another message or key", headerSignature)
	}
	return id, v.remember(id, now)
}

// remember refuses what it has, and where it is full everything: to forget an id within
// its time would let its message in again.
func (v *Verifier) remember(id string, now time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.seen[id]; ok {
		return ErrReplayed
	}
	if len(v.seen) >= v.most {
		for old, at := range v.seen {
			if now.Sub(at) > 2*v.window { // its time may have been ahead of ours
				delete(v.seen, old)
			}
		}
		if len(v.seen) >= v.most {
			return fmt.Errorf("more than %d messages in %v", v.most, 2*v.window)
		}
	}
	v.seen[id] = now
	return nil
}

// SetHeaders signs a message in its headers.
func SetHeaders(h http.Header, key []byte, id string, at time.Time, body []byte) {
	h.Set(headerID, id)
	h.Set(headerTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(headerSignature, Sign(key, id, at, body))
}

package chat

import "time"

// Session is one log-in of a user on one device. Its refresh tokens are a family: each
// use of the newest gives the next one, by its generation.
type Session struct {
	ID, UserID string
	Device     string // as the user calls it
	Created    time.Time
	Used       time.Time // when a refresh token was last used; Created before that
	Generation int64     // of the refresh token that is good now, from 1
}

// Rotation says what the use of a refresh token means.
type Rotation string

// The closed list.
const (
	Rotated  Rotation = "rotated"  // the next token is good now
	Repeated Rotation = "repeated" // the answer was lost, or another tab was first: the same successor
	Reused   Rotation = "reused"   // somebody has a copy of an old token: the session must end
	Expired  Rotation = "expired"  // it was not used for too long: the session must end
)

// Rotate judges the use of the refresh token of a generation, and returns the session
// after it. A session ends when it was not used for ttl.
//
// A token that was rotated must not come again (RFC 9700, 4.14.2), except within grace of
// its use, when a client that lost the answer asks again. It then gets the successor that
// is there already and no other one. So whoever else has a copy holds the same token as
// the client; they cannot both use it, and the second one to do so ends the session:
// grace delays what is detected and lets nothing through. The alternative, that a lost
// answer logs the user out, would end sessions with every network that breaks.
func (s Session) Rotate(generation int64, now time.Time, ttl, grace time.Duration) (Session, Rotation) {
	switch {
	case now.Sub(s.Used) > ttl:
		return s, Expired
	case generation == s.Generation:
		s.Generation++
		s.Used = now
		return s, Rotated
	case generation == s.Generation-1 && now.Sub(s.Used) < grace:
		return s, Repeated
	default:
		return s, Reused
	}
}

// Ended is a session that has ended before its tokens did.
type Ended struct {
	ID, UserID string
	At         time.Time
}

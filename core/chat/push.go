package chat

import (
	"strings"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// Limits of what a device says about how it is reached, in bytes.
const (
	MaxPushToken    = 4096
	MaxPushPlatform = 32
)

// CheckPush checks what a device registers; both are empty where it takes that back.
func CheckPush(platform, token string) *protocol.Error {
	printable := func(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) }
	switch {
	case (platform == "") != (token == ""):
		return invalid("token", "and platform must be given together")
	case len(platform) > MaxPushPlatform || !only(platform, isNameByte):
		return invalid("platform", "must be at most %d of a-z 0-9 _ . -", MaxPushPlatform)
	case len(token) > MaxPushToken || !printable(token):
		return invalid("token", "must be at most %d printable characters without spaces", MaxPushToken)
	}
	return nil
}

// Unpushed is a message that nobody has been notified of yet.
type Unpushed struct {
	Seq              int64
	SenderID, Sender string
	Text             string
	SentAt           time.Time
}

// PushDevice is a device that can be notified.
type PushDevice struct {
	Session         string
	User            User
	Platform, Token string
}

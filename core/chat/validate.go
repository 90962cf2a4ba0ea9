package chat

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tracegate/tracegate/core/protocol"
)

// Limits of what a client may send, in bytes.
const (
	MaxText         = 4096
	MaxClientID     = 64
	MinName         = 3
	MaxName         = 32
	MinPassword     = 8
	MaxPassword     = 72 // bcrypt ignores what follows, so longer ones are refused
	MaxConversation = 64
	MaxTenant       = 64
)

// invalid returns the error a client sees for a bad field.
func invalid(field, format string, args ...any) *protocol.Error {
	return protocol.NewError(protocol.CodeInvalidArgument, field, field+" "+fmt.Sprintf(format, args...))
}

// CheckSend checks a message that a client wants to send; nil when it may be.
func CheckSend(conversation, clientID, text string) *protocol.Error {
	if err := CheckConversationID("conversation", conversation); err != nil {
		return err
	}
	if err := checkClientID(clientID); err != nil {
		return err
	}
	return CheckText(text)
}

// CheckText checks the text of a message. NUL is refused because PostgreSQL cannot
// store it: what is accepted must be storable.
func CheckText(text string) *protocol.Error {
	switch {
	case text == "":
		return invalid("text", "must not be empty")
	case len(text) > MaxText:
		return protocol.NewError(protocol.CodeTooLarge, "text", fmt.Sprintf("text has %d bytes, at most %d are allowed", len(text), MaxText))
	case !utf8.ValidString(text):
		return invalid("text", "must be valid UTF-8")
	case strings.IndexByte(text, 0) >= 0:
		return invalid("text", "must not contain U+0000")
	}
	return nil
}

func checkClientID(id string) *protocol.Error {
	if len(id) < 1 || len(id) > MaxClientID || !only(id, isClientIDByte) {
		return invalid("client_id", "must be 1 to %d of A-Z a-z 0-9 _ -", MaxClientID)
	}
	return nil
}

// CheckConversationID checks the form of a conversation's id that came in a field.
func CheckConversationID(field, id string) *protocol.Error {
	if len(id) < 1 || len(id) > MaxConversation || !only(id, isClientIDByte) {
		return invalid(field, "must be the id of a conversation")
	}
	return nil
}

// CheckName checks a user name that came in a field.
func CheckName(field, name string) *protocol.Error {
	if len(name) < MinName || len(name) > MaxName || !only(name, isNameByte) {
		return invalid(field, "must be %d to %d of a-z 0-9 _ . -", MinName, MaxName)
	}
	return nil
}

// CheckPassword checks the length of a password, never its content.
func CheckPassword(password string) *protocol.Error {
	if len(password) < MinPassword || len(password) > MaxPassword {
		return invalid("password", "must have %d to %d bytes", MinPassword, MaxPassword)
	}
	return nil
}

func only(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isClientIDByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '_' || b == '-'
}

func isNameByte(b byte) bool {
	return 'a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '_' || b == '-' || b == '.'
}

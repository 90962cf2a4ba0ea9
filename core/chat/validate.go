package chat

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tracegate/tracegate/core/protocol"
)

// Limits of what a client may send, in bytes.
const (
	MaxText         = 4096
	MaxClientID     = 64
	MaxRecordID     = 80 // of a client id in a record, where core may have put a word before it
	MinName         = 3
	MaxName         = 32
	MinPassword     = 8
	MaxPassword     = 72 // bcrypt ignores what follows, so longer ones are refused
	MaxConversation = 64
	MaxTenant       = 64
	MaxGroupName    = 128
)

// Limits of numbers.
const (
	MaxMembers       = 50_000 // of a group
	MaxAdded         = 100    // members at a time, the first ones of a new group included
	MaxConversations = 5_000  // of a user, whatever is set: a client that resumes names all of them
)

// invalid returns the error a client sees for a bad field.
func invalid(field, format string, args ...any) *protocol.Error {
	return protocol.NewError(protocol.CodeInvalidArgument, field, field+" "+fmt.Sprintf(format, args...))
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

// CheckGroupName checks the name of a group that came in the field name.
func CheckGroupName(name string) *protocol.Error {
	switch {
	case strings.TrimSpace(name) == "":
		return invalid("name", "must not be empty")
	case len(name) > MaxGroupName:
		return invalid("name", "has %d bytes, at most %d are allowed", len(name), MaxGroupName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return invalid("name", "must be UTF-8 without control characters")
	}
	return nil
}

// CheckClientID checks an idempotency key of a client's.
func CheckClientID(id string) *protocol.Error {
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

package chat

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tracegate/tracegate/core/protocol"
)

// Profile is what a user says about itself; all of it may be empty.
type Profile struct {
	DisplayName string
	Avatar      string // an https URL, or the id of a file
	About       string
}

// Person is a user with its profile.
type Person struct {
	User
	Profile
}

// ProfileChange is a new profile, where nil is as before.
type ProfileChange struct{ DisplayName, Avatar, About *string }

// Limits of a profile and of a device's name, in bytes.
const (
	MaxDisplayName = 128
	MaxAvatar      = 512
	MaxAbout       = 1024
	MaxDevice      = 64
)

// Check checks those fields that change.
func (p ProfileChange) Check() *protocol.Error {
	if p.DisplayName != nil {
		if err := checkLine("display_name", *p.DisplayName, MaxDisplayName); err != nil {
			return err
		}
	}
	if p.Avatar != nil {
		if err := checkAvatar(*p.Avatar); err != nil {
			return err
		}
	}
	if p.About != nil {
		return checkPrinted("about", *p.About, MaxAbout, func(r rune) bool { return unicode.IsControl(r) && r != '\n' })
	}
	return nil
}

// CheckDevice checks the name of a device; it may be empty.
func CheckDevice(name string) *protocol.Error { return checkLine("device", name, MaxDevice) }

// checkLine checks a text of one line that may be empty, but not blank.
func checkLine(field, text string, most int) *protocol.Error {
	if text != strings.TrimSpace(text) {
		return invalid(field, "must not begin or end with a space")
	}
	return checkPrinted(field, text, most, unicode.IsControl)
}

func checkPrinted(field, text string, most int, refused func(rune) bool) *protocol.Error {
	switch {
	case len(text) > most:
		return protocol.NewError(protocol.CodeTooLarge, field, fmt.Sprintf("%s has %d bytes, at most %d are allowed", field, len(text), most))
	case !utf8.ValidString(text) || strings.ContainsFunc(text, refused):
		return invalid(field, "must be UTF-8 without control characters")
	}
	return nil
}

// checkAvatar refuses what a page could take for something else than an image's address.
func checkAvatar(ref string) *protocol.Error {
	if ref == "" || len(ref) <= MaxConversation && only(ref, isClientIDByte) {
		return nil
	}
	u, err := url.Parse(ref)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return invalid("avatar", "must be an https URL or the id of a file")
	}
	return checkPrinted("avatar", ref, MaxAvatar, unicode.IsControl)
}

package chat

import (
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tracegate/tracegate/core/protocol"
)

// File is a file that somebody has uploaded.
type File struct {
	protocol.File
	OwnerID       string
	ThumbnailType string // MIME; empty where there is no thumbnail
	UploadedAt    time.Time
}

// FileQuota is what one user may keep.
type FileQuota struct {
	Bytes int64
	Files int
}

// MaxFileName is in bytes; most file systems take 255.
const MaxFileName = 200

// CleanFileName is the name that a client gave a file without what is dangerous in it:
// folders, control and formatting characters (which may turn its end round), leading
// dots, and what is too long. It is never empty.
func CleanFileName(name string) string {
	name = path.Base(strings.ReplaceAll(strings.ToValidUTF8(name, ""), `\`, "/"))
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || strings.ContainsRune(`/:*?"<>|`, r) {
			return -1
		}
		return r
	}, name)
	name = strings.TrimRight(strings.TrimLeft(name, ". "), " ")
	if ext := path.Ext(name); len(name) > MaxFileName && len(ext) < 20 {
		name = cut(name, MaxFileName-len(ext)) + ext
	}
	if name = strings.TrimRight(cut(name, MaxFileName), " "); name == "" {
		return "file"
	}
	return name
}

// cut shortens s to at most n bytes and does not break a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

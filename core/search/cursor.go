package search

import (
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// place is a message, as the id of its document: newest first is the order of pages.
type place struct {
	conversation string
	seq          int64
}

func (p place) id() string { return p.conversation + "/" + strconv.FormatInt(p.seq, 10) }

func parsePlace(id string) (place, bool) {
	conversation, digits, ok := strings.Cut(id, "/")
	seq, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || seq < 1 || chat.CheckConversationID("", conversation) != nil {
		return place{}, false
	}
	return place{conversation, seq}, true
}

// cursor is the last message of a page; the zero one is before the first page.
type cursor struct {
	at int64 // microseconds
	place
}

func (c cursor) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %s", c.at, c.id()))
}

// maxCursor is in bytes, more than any cursor has.
const maxCursor = 200

func parseCursor(s string) (cursor, bool) {
	if s == "" {
		return cursor{}, true
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(s) > maxCursor {
		return cursor{}, false
	}
	digits, id, _ := strings.Cut(string(b), " ")
	at, err := strconv.ParseInt(digits, 10, 64)
	p, ok := parsePlace(id)
	return cursor{at, p}, err == nil && ok && at > 0 && at < math.MaxInt64/2
}

// after is the cursor as the values that bleve sorts by.
func (c cursor) after() []string {
	if c.at == 0 {
		return nil
	}
	return []string{strconv.FormatInt(c.at, 10), c.id()}
}

// micros is a time as documents have it; a float64 keeps it whole until the year 2255.
func micros(t time.Time) float64 { return float64(t.UnixMicro()) }

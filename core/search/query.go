package search

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Query is what a user looks for.
type Query struct {
	UserID string `json:"user_id"`
	// Text is words that must all be there, "words in quotes" that must stand side by side,
	// and -words that must not be there.
	Text         string    `json:"text"`
	Conversation string    `json:"conversation,omitempty"` // id; empty: all
	Sender       string    `json:"sender,omitempty"`       // user name; empty: all
	After        time.Time `json:"after,omitzero"`         // sent then or later
	Before       time.Time `json:"before,omitzero"`        // sent before
	Limit        int       `json:"limit"`
	Cursor       string    `json:"cursor,omitempty"` // of the page before
}

// Limits of a query.
const (
	MaxText    = 256 // bytes
	MaxPhrases = 16
	MaxLimit   = 50
)

// phrase is terms that stand side by side, or must not stand there.
type phrase struct {
	terms []string
	not   bool
}

// parse checks a query and takes its text apart.
func parse(q Query) ([]phrase, cursor, *protocol.Error) {
	if err := checkFilters(q); err != nil {
		return nil, cursor{}, err
	}
	from, ok := parseCursor(q.Cursor)
	if !ok {
		return nil, from, invalid("cursor", "must be the next of a page before")
	}
	switch {
	case len(q.Text) > MaxText:
		return nil, from, protocol.NewError(protocol.CodeTooLarge, "q", fmt.Sprintf("q has %d bytes, at most %d are allowed", len(q.Text), MaxText))
	case !utf8.ValidString(q.Text):
		return nil, from, invalid("q", "must be valid UTF-8")
	}
	phrases := split(q.Text)
	positive := 0
	for _, p := range phrases {
		if !p.not {
			positive++
		}
	}
	switch {
	case positive == 0:
		return nil, from, invalid("q", "must have a word to look for")
	case len(phrases) > MaxPhrases:
		return nil, from, invalid("q", fmt.Sprintf("must not have more than %d words", MaxPhrases))
	}
	return phrases, from, nil
}

func checkFilters(q Query) *protocol.Error {
	if q.Conversation != "" {
		if err := chat.CheckConversationID("conversation", q.Conversation); err != nil {
			return err
		}
	}
	if q.Sender != "" {
		if err := chat.CheckName("sender", q.Sender); err != nil {
			return err
		}
	}
	switch {
	case q.Limit < 1 || q.Limit > MaxLimit:
		return invalid("limit", fmt.Sprintf("must be 1 to %d", MaxLimit))
	case !q.After.IsZero() && !q.Before.IsZero() && !q.After.Before(q.Before):
		return invalid("before", "must be later than after")
	}
	return nil
}

func invalid(field, message string) *protocol.Error {
	return protocol.NewError(protocol.CodeInvalidArgument, field, field+" "+message)
}

// split reads the text of a query. A quote that is not closed goes to the end.
func split(text string) []phrase {
	var out []phrase
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		not := len(text) > 1 && text[0] == '-' && text[1] != ' '
		if not {
			text = text[1:]
		}
		var word string
		if rest, quoted := strings.CutPrefix(text, `"`); quoted {
			word, text, _ = strings.Cut(rest, `"`)
		} else if i := strings.IndexFunc(text, unicode.IsSpace); i >= 0 {
			word, text = text[:i], text[i:]
		} else {
			word, text = text, ""
		}
		p := phrase{not: not}
		for _, t := range analyze(word) {
			p.terms = append(p.terms, t.text)
		}
		if len(p.terms) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// places returns where a phrase stands in the terms of a text, as indexes of its first.
func (p phrase) places(terms []term) []int {
	var out []int
	for i := 0; i+len(p.terms) <= len(terms); i++ {
		same := true
		for j, t := range p.terms {
			if terms[i+j].text != t {
				same = false
				break
			}
		}
		if same {
			out = append(out, i)
		}
	}
	return out
}

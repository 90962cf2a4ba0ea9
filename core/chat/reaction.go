package chat

import (
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/tracegate/tracegate/core/protocol"
)

// Bounds of reactions.
const (
	MaxEmoji     = 64 // bytes; a family of four with skin tones has 41
	MaxReactions = 20 // different ones of a message
)

// Reaction is a member's reaction to a message.
type Reaction struct {
	Place
	Emoji, UserID string
}

// Tally is how many members have reacted to a message with an emoji. Since is the seq of
// the entry from which on it was never none: the order in which they are shown.
type Tally struct {
	Emoji string
	Count int
	Since int64
}

// CheckEmoji checks a reaction. It asks for one character as people see it and not for one
// of Unicode's lists of emoji: those grow every year, and a process that is older than a
// phone would refuse what the phone offers.
func CheckEmoji(emoji string) *protocol.Error {
	switch {
	case emoji == "":
		return invalid("emoji", "must not be empty")
	case len(emoji) > MaxEmoji:
		return invalid("emoji", "has %d bytes, at most %d are allowed", len(emoji), MaxEmoji)
	case !utf8.ValidString(emoji):
		return invalid("emoji", "must be valid UTF-8")
	case uniseg.GraphemeClusterCount(emoji) != 1:
		return invalid("emoji", "must be one character")
	}
	first, _ := utf8.DecodeRuneInString(emoji)
	if !unicode.IsGraphic(first) || unicode.IsSpace(first) || unicode.IsMark(first) {
		return invalid("emoji", "must be a character that can be seen")
	}
	return nil
}

func isReaction(kind protocol.EventKind) bool {
	return kind == protocol.EventReacted || kind == protocol.EventUnreacted
}

// AllowReaction says whether a message that has reactions may have that of a record.
func AllowReaction(r Record, reactions []protocol.Reaction) *protocol.Error {
	known := slices.ContainsFunc(reactions, func(o protocol.Reaction) bool { return o.Emoji == r.Emoji })
	if r.Kind == protocol.EventReacted && !known && len(reactions) >= MaxReactions {
		return denied("emoji", "a message may have %d different reactions", MaxReactions)
	}
	return nil
}

// judgeReaction is AllowReaction for a batch, in which others may have reacted before. It
// leaves the count in the record.
//
// What changes nothing is an entry all the same. Whoever taps twice has the second tap
// accepted before the first is stored; were it answered by what is stored, it would be
// lost, and who reacts would stay with what was taken back.
func (b *batch) judgeReaction(now Standing, n *Numbered) Reason {
	place := Place{n.Conversation, n.Target}
	tallies, known := b.tallies[place]
	if !known {
		tallies = b.state.Tallies[place]
	}
	mine := Reaction{place, n.Emoji, n.SenderID}
	has, known := b.reacted[mine]
	if !known {
		has = b.state.Reacted[mine]
	}
	add := n.Kind == protocol.EventReacted
	i := slices.IndexFunc(tallies, func(t Tally) bool { return t.Emoji == n.Emoji })
	switch {
	case add && i < 0 && len(tallies) >= MaxReactions:
		return ReasonForbidden
	case !add && i < 0:
		n.Tally = Tally{Emoji: n.Emoji}
		return ""
	}
	tallies = slices.Clone(tallies)
	if i < 0 {
		i = len(tallies)
		tallies = append(tallies, Tally{Emoji: n.Emoji, Since: now.LastSeq + 1})
	}
	switch {
	case add && !has:
		tallies[i].Count++
	case !add && has:
		tallies[i].Count--
	}
	n.Tally = tallies[i]
	if n.Tally.Count <= 0 {
		tallies = slices.Delete(tallies, i, i+1)
	}
	if b.tallies == nil {
		b.tallies, b.reacted = map[Place][]Tally{}, map[Reaction]bool{}
	}
	b.tallies[place], b.reacted[mine] = tallies, add
	return ""
}

package chat

import (
	"fmt"
	"slices"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// Standing is what decides about a record of a conversation.
type Standing struct {
	LastSeq int64
	Roster  *Roster
	Count   int      // of members
	Open    bool     // a group that anybody may join
	Silent  []string // users of a direct conversation whom the other one blocks
	Refused int64    // LoggedAt of the newest Attempt that was refused: of later ones none was
}

// Target is a message that an edit, a recall or a reply names.
type Target struct {
	Kind     protocol.EventKind // empty: only a message can be a target
	SenderID string
	SentAt   time.Time
	Recalled bool
	File     string // id, of a message that has one
}

// Allow says whether the sender of a record may do that: nil, or what is in the way.
// It is asked twice, before the record is accepted, so that the sender gets a clear
// answer, and when it is numbered, which decides.
func Allow(s Standing, r Record) *protocol.Error {
	actor, ok := s.Roster.Find(r.SenderID)
	switch {
	case ok:
	case s.Open && r.joins() && len(s.Roster.Members) > 0: // else it would have no owner
		return hasRoom(s.Roster, r.Members)
	default:
		return NoConversation()
	}
	switch r.Kind {
	case "", protocol.EventEdited, protocol.EventReacted:
		return s.Speaks(actor.ID)
	case protocol.EventRecalled, protocol.EventUnreacted:
		return nil
	case protocol.EventAdded, protocol.EventRemoved, protocol.EventRole, protocol.EventRenamed, protocol.EventOpened, protocol.EventClosed:
		if !s.Roster.Group {
			return invalid("conversation", "is not a group: its members and name cannot change")
		}
		return allowChange(s.Roster, actor, r)
	default:
		return invalid("kind", "cannot be asked for")
	}
}

// Speaks says whether a member may say something; nil when it may.
func (s Standing) Speaks(userID string) *protocol.Error {
	if slices.Contains(s.Silent, userID) {
		return denied("conversation", "the other one has blocked you")
	}
	return nil
}

// NoConversation is the answer to who is not a member, whether there is one or not.
func NoConversation() *protocol.Error {
	return protocol.NewError(protocol.CodeNotFound, "conversation", "there is no such conversation of yours")
}

func denied(field, format string, args ...any) *protocol.Error {
	return protocol.NewError(protocol.CodePermissionDenied, field, fmt.Sprintf(format, args...))
}

func allowChange(roster *Roster, actor Member, r Record) *protocol.Error {
	switch r.Kind {
	case protocol.EventAdded:
		if actor.Role < RoleAdmin && !r.joins() {
			return denied("members", "only an admin may add members")
		}
		return hasRoom(roster, r.Members)
	case protocol.EventRemoved:
		return allowRemove(roster, actor, r.Members[0])
	case protocol.EventRole:
		if actor.Role < RoleOwner {
			return denied("role", "only the owner may give roles")
		}
		if r.Members[0].ID == actor.ID && r.Role != RoleOwner {
			return denied("role", "the owner must make somebody else the owner instead")
		}
		if _, ok := roster.Find(r.Members[0].ID); !ok {
			return protocol.NewError(protocol.CodeNotFound, "name", "name is not a member")
		}
	case protocol.EventRenamed:
		if actor.Role < RoleAdmin {
			return denied("name", "only an admin may rename the group")
		}
	case protocol.EventOpened, protocol.EventClosed:
		if actor.Role < RoleAdmin {
			return denied("open", "only an admin may open or close the group")
		}
	}
	return nil
}

// hasRoom says whether a group may have these members too.
func hasRoom(roster *Roster, more []Member) *protocol.Error {
	if n := len(roster.Members) + len(newcomers(roster, more)); n > MaxMembers {
		return protocol.NewError(protocol.CodeTooLarge, "members", fmt.Sprintf("the group would have %d members, at most %d are allowed", n, MaxMembers))
	}
	return nil
}

func allowRemove(roster *Roster, actor, whom Member) *protocol.Error {
	m, ok := roster.Find(whom.ID)
	switch {
	case !ok:
		return protocol.NewError(protocol.CodeNotFound, "name", "name is not a member")
	case m.ID == actor.ID && m.Role == RoleOwner && len(roster.Members) > 1:
		return denied("name", "the owner must make somebody else the owner before leaving")
	case m.ID != actor.ID && (actor.Role < RoleAdmin || m.Role >= actor.Role):
		return denied("name", "a %s may not remove a %s", actor.Role, m.Role)
	}
	return nil
}

// AllowTarget says whether the sender of an edit, a recall or a reaction may do that to a
// message.
func AllowTarget(s Standing, r Record, t Target) *protocol.Error {
	actor, _ := s.Roster.Find(r.SenderID)
	own := t.SenderID == r.SenderID
	switch {
	case t.Kind != "":
		return invalid("seq", "is not a message")
	case r.Kind == protocol.EventEdited && !own:
		return denied("seq", "only its sender may edit a message")
	case t.Recalled && (r.Kind == protocol.EventEdited || isReaction(r.Kind)):
		return denied("seq", "the message has been recalled")
	case r.Kind == protocol.EventRecalled && !own && actor.Role < RoleAdmin:
		return denied("seq", "only its sender or an admin may recall a message")
	}
	return nil
}

// Already says that a record that is allowed would change nothing.
func Already(s Standing, r Record, t Target) bool {
	switch r.Kind {
	case protocol.EventAdded:
		return len(newcomers(s.Roster, r.Members)) == 0
	case protocol.EventRole:
		m, _ := s.Roster.Find(r.Members[0].ID)
		return m.Role == r.Role
	case protocol.EventOpened, protocol.EventClosed:
		return s.Open == (r.Kind == protocol.EventOpened)
	case protocol.EventRecalled:
		return t.Recalled
	default:
		return false
	}
}

// newcomers are those of the list who are not in the roster, each once.
func newcomers(roster *Roster, list []Member) []Member {
	var out []Member
	for _, m := range list {
		_, in := roster.Find(m.ID)
		if !in && !slices.ContainsFunc(out, func(o Member) bool { return o.ID == m.ID }) {
			out = append(out, m)
		}
	}
	return out
}

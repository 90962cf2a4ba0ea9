package chat

import (
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// FriendState is how one user stands to another, as that one sees it.
type FriendState string

// The closed list.
const (
	Strangers FriendState = "none"
	Outgoing  FriendState = "outgoing" // it has asked the other one
	Incoming  FriendState = "incoming" // the other one has asked
	Friends   FriendState = "friend"
)

// Mirror is the same as the other one sees it.
func (s FriendState) Mirror() FriendState {
	switch s {
	case Outgoing:
		return Incoming
	case Incoming:
		return Outgoing
	default:
		return s
	}
}

// Friend is another user as a user's list has it.
type Friend struct {
	User
	State FriendState
	Since time.Time // of the state
}

// FriendAct is what a user may do about another one.
type FriendAct int

// The acts.
const (
	AskFriend    FriendAct = iota // where the other one has asked already, it accepts
	AcceptFriend                  // a request of the other one
	EndFriend                     // declines, withdraws or removes, whichever there is
)

// Acquaintance is what decides about an act.
type Acquaintance struct {
	State    FriendState // as the actor sees it
	Blocks   bool        // the actor blocks the other one
	Blocked  bool        // the other one blocks the actor
	HaveRoom bool        // both may have one more
}

// Act says how the actor stands to the other one afterwards.
func (a Acquaintance) Act(act FriendAct) (FriendState, *protocol.Error) {
	switch {
	case act == EndFriend:
		return Strangers, nil
	case a.State == Friends:
		return Friends, nil
	case act == AcceptFriend && a.State != Incoming:
		return a.State, protocol.NewError(protocol.CodeNotFound, "name", "there is no request of this user")
	case a.Blocked:
		return a.State, denied("name", "the other one has blocked you")
	case a.Blocks:
		return a.State, denied("name", "you block this user")
	case a.State == Incoming:
		return Friends, nil
	case a.State == Strangers && !a.HaveRoom:
		return a.State, denied("name", "one of you has too many friends and requests")
	default:
		return Outgoing, nil
	}
}

// Package friend is who is a friend of whom: one user asks, the other accepts or declines,
// either may end it, and a block ends it and keeps it from beginning again.
//
// Who may what is a rule of core/chat, which core/store asks in the transaction that writes
// both sides, so that two users who ask each other at once are friends, and a request and a
// block at once end as blocked. Here both users' devices are told, wherever they are
// connected. That may get lost: the list is what holds, and a client reads it when it
// connects. Entries of a log, which could be resumed, lost: a friendship has no history
// that anybody would want to see.
//
// Its caller is core/api.
package friend

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/protocol"
)

// Max is how many friends and requests, in and out, a user may have.
const Max = 5000

// Store is where it is kept.
type Store interface {
	// Befriend returns how the first user stood to the other one, and stands now. It
	// answers a *protocol.Error where that may not be.
	Befriend(ctx context.Context, userID, otherID string, act chat.FriendAct, limit int, at time.Time) (before, after chat.FriendState, err error)
	Friends(ctx context.Context, userID string, state chat.FriendState, after string, limit int) ([]chat.Friend, error)
}

// Local pushes to the connections of this process; it must not block.
type Local interface {
	Signal(user string, frame []byte)
}

// Remote pushes to those of other processes; it must not block.
type Remote interface {
	Publish([]fanout.Push)
}

// Friends is safe for concurrent use.
type Friends struct {
	store  Store
	local  Local
	remote Remote
	now    func() time.Time
}

// New joins the parts.
func New(store Store, local Local, remote Remote, now func() time.Time) *Friends {
	return &Friends{store: store, local: local, remote: remote, now: now}
}

// Act does something about another user and returns how from stands to it then.
func (f *Friends) Act(ctx context.Context, from, other chat.User, act chat.FriendAct) (chat.FriendState, error) {
	if from.ID == other.ID {
		return chat.Strangers, protocol.NewError(protocol.CodeInvalidArgument, "name", "name must be someone else")
	}
	before, after, err := f.store.Befriend(ctx, from.ID, other.ID, act, Max, f.now())
	if err == nil && before != after {
		f.Tell(from, other, after)
	}
	return after, err
}

// Tell tells the devices of two users how they stand to each other; state is how the first
// one stands to the other.
func (f *Friends) Tell(from, other chat.User, state chat.FriendState) {
	var pushes []fanout.Push
	for _, side := range []struct {
		to, about chat.User
		state     chat.FriendState
	}{{from, other, state}, {other, from, state.Mirror()}} {
		frame, _ := json.Marshal(protocol.Frame{Friend: &protocol.Friend{User: side.about.Name, State: string(side.state)}}) // always encodes
		f.local.Signal(side.to.ID, frame)
		pushes = append(pushes, fanout.Push{User: side.to.ID, Frame: frame})
	}
	f.remote.Publish(pushes)
}

// List is a page of those to whom a user stands in a state, in the order of ids.
func (f *Friends) List(ctx context.Context, userID string, state chat.FriendState, after string, limit int) ([]chat.Friend, error) {
	return f.store.Friends(ctx, userID, state, after, limit)
}

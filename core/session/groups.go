package session

import (
	"context"

	"github.com/tracegate/tracegate/core/chat"
)

// groupPush is an entry of a group on its way to those of its members that are here.
type groupPush struct {
	conversation string
	version, seq int64
	frame        []byte
}

// groupQueue bounds the pushes that wait for a roster to be read.
const groupQueue = 1024

// rememberedGroups bounds the rosters that the loop has at hand. They are the store's
// own, so that one costs little.
const rememberedGroups = 4096

// DeliverAll is Deliver for all members of a conversation who were in it with the entry:
// the roster may be a later one. It does not block. Of members and connections here, it
// looks each of the fewer ones up among the others; what that costs is small beside writing
// to those that it finds.
func (h *Hub) DeliverAll(members *chat.Roster, conversation string, seq int64, frame []byte) {
	if len(members.Members) <= h.Sockets() {
		for _, m := range members.Members {
			if m.Joined <= seq {
				h.Deliver(m.ID, conversation, seq, frame)
			}
		}
		return
	}
	h.each(func(c *conn) {
		if m, ok := members.Find(c.userID); ok && m.Joined <= seq {
			c.deliver(conversation, seq, frame)
		}
	})
}

// Group takes a push for all members of a group. It does not block: where too many wait,
// the push is dropped, and the tick finds what it would have told.
func (h *Hub) Group(conversation string, version, seq int64, frame []byte) {
	select {
	case h.groups <- groupPush{conversation, version, seq, frame}:
	default:
		h.metrics.groupsDropped.Inc()
	}
}

// groupLoop delivers pushes to groups in the order in which they come.
func (h *Hub) groupLoop(ctx context.Context) {
	known := map[string]*chat.Roster{}
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-h.groups:
			h.deliverGroup(ctx, known, p)
		}
	}
}

// deliverGroup delivers a push to those who were members when the entry was numbered and
// still are, by that roster or any later one: several entries of one batch may change it,
// and only the last is to be had. Who has left since finds in the store what it may see.
func (h *Hub) deliverGroup(ctx context.Context, known map[string]*chat.Roster, p groupPush) {
	roster := known[p.conversation]
	if roster == nil || roster.Version < p.version {
		ctx, cancel := context.WithTimeout(ctx, h.cfg.WriteTimeout)
		standing, err := h.deps.History.Standing(ctx, p.conversation)
		cancel()
		if err != nil {
			h.metrics.storeErrors.Inc() // the tick asks again
			return
		}
		roster = standing.Roster
		if len(known) >= rememberedGroups {
			clear(known)
		}
		known[p.conversation] = roster
	}
	if roster.Version < p.version { // of a store that is behind; it knows who may, once it is not
		p.frame = nil
	}
	h.DeliverAll(roster, p.conversation, p.seq, p.frame)
}

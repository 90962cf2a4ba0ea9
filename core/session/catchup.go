package session

import (
	"context"
	"maps"
	"slices"

	"github.com/tracegate/tracegate/core/chat"
)

// CatchUp makes the connections of a user compare their positions with the store soon.
func (h *Hub) CatchUp(user string) {
	h.pendMu.Lock()
	h.pending[user] = struct{}{}
	h.pendMu.Unlock()
	h.wakeCatchUp()
}

// CatchUpAll is CatchUp for all users that are connected here.
func (h *Hub) CatchUpAll() {
	h.mu.Lock()
	users := slices.Collect(maps.Keys(h.users))
	h.mu.Unlock()
	if len(users) == 0 {
		return
	}
	h.pendMu.Lock()
	h.everyone = users // who is left of the last time is among them
	h.pendMu.Unlock()
	h.wakeCatchUp()
}

func (h *Hub) wakeCatchUp() {
	select {
	case h.catchUp <- struct{}{}:
	default:
	}
}

// catchUpLoop asks the store for the heads of many users at a time.
func (h *Hub) catchUpLoop(ctx context.Context) {
	const atOnce = 200
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.catchUp:
		}
		for {
			users := h.takePending(atOnce)
			if len(users) == 0 {
				break
			}
			heads, err := h.heads(ctx, users...)
			if err != nil {
				h.metrics.storeErrors.Inc() // the next tick asks again
				break
			}
			for _, u := range users {
				h.compare(u, heads[u])
			}
		}
	}
}

// takePending takes at most n users: first those who wait for something, then those whose
// turn it is.
func (h *Hub) takePending(n int) []string {
	h.pendMu.Lock()
	defer h.pendMu.Unlock()
	users := make([]string, 0, n)
	for u := range h.pending {
		if len(users) == n {
			return users
		}
		users = append(users, u)
		delete(h.pending, u)
	}
	k := min(n-len(users), len(h.everyone))
	users = append(users, h.everyone[:k]...)
	if h.everyone = h.everyone[k:]; len(h.everyone) == 0 {
		h.everyone = nil
	}
	return users
}

func (h *Hub) compare(user string, heads map[string]chat.Span) {
	h.mu.Lock()
	list := h.users[user]
	h.mu.Unlock()
	for _, c := range list {
		c.compare(heads)
	}
}

func (h *Hub) heads(ctx context.Context, users ...string) (map[string]map[string]chat.Span, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.WriteTimeout)
	defer cancel()
	return h.deps.History.Heads(ctx, users...)
}

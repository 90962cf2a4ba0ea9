package accept

import "sync"

// members remembers positive answers only, at most max of them; when it is full, some
// other one is forgotten.
type members struct {
	mu  sync.RWMutex
	max int
	set map[member]struct{}
}

type member struct{ conversation, user string }

func newMembers(limit int) *members {
	return &members{max: limit, set: map[member]struct{}{}}
}

func (m *members) has(conversation, user string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, ok := m.set[member{conversation, user}]
	return ok
}

func (m *members) add(conversation, user string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.set) >= m.max {
		for k := range m.set { // Go starts anywhere
			delete(m.set, k)
			break
		}
	}
	m.set[member{conversation, user}] = struct{}{}
}

func (m *members) remove(conversation, user string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.set, member{conversation, user})
}

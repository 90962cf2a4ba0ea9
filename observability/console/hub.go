package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

const (
	// backlog is how many events a viewer may be behind: some fifteen seconds.
	backlog = 64
	// writeTimeout ends a stream whose other side does not read.
	writeTimeout = 10 * time.Second
	// heartbeat lets both sides find a dead connection.
	heartbeat = 15 * time.Second
)

// hub hands the newest state, section by section, to all viewers. A section is sent
// whole and only when it has changed; who comes later gets what there is.
type hub struct {
	max     int
	metrics *metrics
	first   func() // called when the first viewer comes

	mu       sync.Mutex
	sections map[string][]byte
	order    []string
	viewers  map[*viewer]struct{}
	closed   bool
}

type viewer struct {
	events chan []byte
	over   chan struct{} // closed when events was full, or the hub closes
}

func newHub(most int, m *metrics, first func()) *hub {
	return &hub{max: most, metrics: m, first: first, sections: map[string][]byte{}, viewers: map[*viewer]struct{}{}}
}

// watched says whether anybody looks.
func (h *hub) watched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.viewers) > 0
}

// has says whether there is a section to give to who comes next.
func (h *hub) has(section string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sections[section] != nil
}

// publish replaces a section. It never blocks: a viewer that is too far behind is
// dropped, and gets the whole state when its browser comes back.
func (h *hub) publish(section string, state any) error {
	body, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encode %s: %w", section, err)
	}
	event := fmt.Appendf(nil, "event: %s\ndata: %s\n\n", section, body)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.viewers) == 0 {
		return nil // it would be old when the next one comes
	}
	old, known := h.sections[section]
	if bytes.Equal(old, event) {
		return nil
	}
	if !known {
		h.order = append(h.order, section)
	}
	h.sections[section] = event
	for v := range h.viewers {
		select {
		case v.events <- event:
		default:
			h.drop(v, dropSlow)
		}
	}
	return nil
}

// close ends all streams, and those that come later at once, so that a server that
// shuts down need not wait for them.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for v := range h.viewers {
		h.drop(v, dropShutdown)
	}
}

// drop ends a viewer's stream; the caller holds mu.
func (h *hub) drop(v *viewer, reason string) {
	h.metrics.dropped.WithLabelValues(reason).Inc()
	close(v.over)
	h.forget(v)
}

// join gives a viewer whose events begin with the state as it is; nil where there are
// too many.
func (h *hub) join() *viewer {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.viewers) >= h.max {
		h.metrics.dropped.WithLabelValues(dropFull).Inc()
		return nil
	}
	v := &viewer{events: make(chan []byte, backlog), over: make(chan struct{})}
	for _, section := range h.order {
		v.events <- h.sections[section] // there are fewer sections than backlog
	}
	h.viewers[v] = struct{}{}
	h.metrics.viewers.Set(float64(len(h.viewers)))
	if len(h.viewers) == 1 {
		h.first()
	}
	return v
}

func (h *hub) leave(v *viewer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget(v)
}

// forget takes v out; the caller holds mu. With the last viewer goes the state, which
// nobody would keep fresh.
func (h *hub) forget(v *viewer) {
	delete(h.viewers, v)
	h.metrics.viewers.Set(float64(len(h.viewers)))
	if len(h.viewers) == 0 {
		clear(h.sections)
		h.order = nil
	}
}

// getEvents streams until the viewer leaves, is too slow, its session ends, or Run does.
func (c *Console) getEvents(w http.ResponseWriter, r *http.Request) {
	v := c.hub.join()
	if v == nil {
		w.Header().Set("Retry-After", "10")
		refuse(w, &protocol.Error{Code: protocol.CodeUnavailable, Message: "too many viewers, or shutting down", Temporary: true})
		return
	}
	defer c.hub.leave(v)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // proxies would hold events back
	out := http.NewResponseController(w)
	send := func(event []byte) bool {
		// Not every ResponseWriter has deadlines; TCP's own timeout is then the limit.
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := w.Write(event); err != nil {
			return false
		}
		return out.Flush() == nil
	}
	sess := sessionOf(r)
	over := time.NewTimer(sess.expires.Sub(c.deps.Now()))
	defer over.Stop()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	// The browser comes back after a second; what follows is the whole state.
	open := send([]byte("retry: 1000\n\n"))
	for open {
		select {
		case event := <-v.events:
			open = send(event)
		case <-beat.C:
			open = send([]byte(": \n\n"))
		case <-sess.ended:
			open = c.bye(send)
		case <-over.C:
			open = c.bye(send)
		case <-v.over:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (c *Console) bye(send func([]byte) bool) bool {
	c.metrics.dropped.WithLabelValues(dropSession).Inc()
	send([]byte("event: bye\ndata: {}\n\n"))
	return false
}

package ingest

import (
	"context"
	"sync"
	"testing"
	"time"
)

// marks is a store of watermarks.
type marks struct {
	mu   sync.Mutex
	last time.Time
}

func (m *marks) Mark(_ context.Context, _ string, until time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = until
	return nil
}

func (m *marks) after(t time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last.After(t)
}

// TestMarkSaysThatAllIsStored goes on in silence, stops while spans wait on disk, and
// goes on when they are stored.
func TestMarkSaysThatAllIsStored(t *testing.T) {
	cfg := testConfig(t)
	cfg.MarkEvery = time.Millisecond
	s := &sink{tokens: map[string]int{}}
	r := start(t, cfg, s)
	var m marks
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	g.Go(func() { _ = r.Mark(ctx, "here", &m) })
	defer g.Wait()
	defer cancel()
	begin := time.Now()
	eventually(t, "a mark without traffic", func() bool { return m.after(begin) })
	s.set(away)
	if _, err := r.traces.Export(t.Context(), message(1, 0)); err != nil {
		t.Fatal(err)
	}
	spooled := time.Now().Add(10 * time.Millisecond) // one tick may have been under way
	eventually(t, "time passes", func() bool { return time.Since(spooled) > 50*time.Millisecond })
	if m.after(spooled) {
		t.Error("a mark while a span is on disk")
	}
	s.set(nil)
	eventually(t, "a mark after the spool is drained", func() bool { return m.after(spooled) && r.Account().Stored == 1 })
}

package queue_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/queue"
)

// gate is a Handler that stores nothing before it is opened.
type gate struct {
	open   chan struct{}
	stored atomic.Int64
}

func (g *gate) Store(ctx context.Context, batch []chat.Record) ([]chat.Reason, error) {
	select {
	case <-g.open:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	g.stored.Add(int64(len(batch)))
	return make([]chat.Reason, len(batch)), nil
}

// followed is what a follower was told.
type followed struct {
	mu    sync.Mutex
	heard map[string]int
	fail  int // so many calls
	more  chan struct{}
}

func (f *followed) take(_ context.Context, conversations []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case f.more <- struct{}{}:
	default:
	}
	if f.fail > 0 {
		f.fail--
		return errors.New("the index is full")
	}
	for _, c := range conversations {
		f.heard[c]++
	}
	return nil
}

func (f *followed) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.heard))
}

func (f *followed) until(t *testing.T, want ...string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !slices.Equal(f.names(), want) {
		select {
		case <-f.more:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("heard of %v, want %v", f.names(), want)
		}
	}
}

func follow(t *testing.T, cfg queue.Config, each func(context.Context, []string) error) (stop func()) {
	t.Helper()
	f, err := queue.NewFollower(cfg, cfg.Group+".search", "search", prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, each) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// TestFollowerHearsOfWhatIsStored: of everything, not before it is stored, again where it
// could not take it up, and after a restart of what is new only.
func TestFollowerHearsOfWhatIsStored(t *testing.T) {
	onEach(t, func(t *testing.T, cfg queue.Config) {
		p := producer(t, cfg, tracing())
		accept(t, p, message("a", 1), message("b", 2), message("a", 3), message("c", 4))
		g := &gate{open: make(chan struct{})}
		consumer(t, cfg, tracing(), g, prometheus.NewRegistry())
		f := &followed{heard: map[string]int{}, fail: 1, more: make(chan struct{}, 1)}
		stop := follow(t, cfg, func(ctx context.Context, conversations []string) error {
			if g.stored.Load() == 0 {
				t.Errorf("heard of %v before anything was stored", conversations)
			}
			return f.take(ctx, conversations)
		})
		close(g.open)
		f.until(t, "a", "b", "c")
		stop()
		accept(t, p, message("d", 5))
		again := &followed{heard: map[string]int{}, more: make(chan struct{}, 1)}
		follow(t, cfg, again.take)
		again.until(t, "d")
		if diff := cmp.Diff(map[string]int{"d": 1}, again.heard); diff != "" {
			t.Error(diff)
		}
	})
}

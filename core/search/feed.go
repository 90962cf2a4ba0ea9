package search

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// feed keeps the index up with the database.
type feed struct {
	cfg     Config
	index   *Index
	store   Store
	metrics metrics
	log     *slog.Logger
	mu      sync.Mutex // one writer: a position is read, then written
}

// take is what the follower calls.
func (f *feed) take(ctx context.Context, conversations []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := catchUp(ctx, f.index, f.store, conversations...)
	f.metrics.entries.Add(float64(n))
	return err
}

// scanPage is how many conversations are looked at between two reads.
const scanPage = 500

// scan goes once through all conversations: a new index gets everything, one that was
// away for longer than the log keeps records what it missed. It goes on after trouble.
func (f *feed) scan(ctx context.Context) error {
	f.metrics.building.Set(1)
	defer f.metrics.building.Set(0)
	start, after, looked := time.Now(), "", 0
	for pause := time.Second; ; {
		heads, err := f.store.ConversationHeads(ctx, after, scanPage)
		if err == nil {
			err = f.behind(ctx, heads)
		}
		if n := len(heads); err == nil && n > 0 {
			after, looked = heads[n-1].Conversation, looked+n
		}
		switch {
		case err != nil && ctx.Err() == nil:
			f.log.Warn("scan conversations, trying on", "error", err)
			if !sleep(ctx, pause) {
				return nil
			}
			pause = min(2*pause, time.Minute)
		case ctx.Err() != nil:
			return nil
		case len(heads) < scanPage:
			f.log.Info("all conversations are in the index", "conversations", looked, "took", time.Since(start).Round(time.Millisecond))
			return nil
		default:
			pause = time.Second
		}
	}
}

// behind takes up those of the conversations that have more than the index.
func (f *feed) behind(ctx context.Context, heads []chat.Head) error {
	var late []string
	for _, h := range heads {
		at, err := f.index.Position(h.Conversation)
		if err != nil {
			return fmt.Errorf("read position: %w", err)
		}
		if at < h.LastSeq {
			late = append(late, h.Conversation)
		}
	}
	return f.take(ctx, late)
}

// trimBatch is how many messages are deleted at a time.
const trimBatch = 1000

// trim keeps the index within its bound.
func (f *feed) trim(ctx context.Context) error {
	for sleep(ctx, f.cfg.Every) {
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = f.index.Trim(ctx, f.cfg.MaxMessages, trimBatch); err != nil {
				f.log.Warn("trim index", "error", err)
				break
			}
		}
	}
	return nil
}

// sleep returns false where ctx was done before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

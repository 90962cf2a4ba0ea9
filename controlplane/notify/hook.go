package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/mesh/webhook"
)

// maxQueued bounds what waits for one hook; the oldest goes first, counted.
const maxQueued = 500

// hook is one receiver with what it has not had yet.
type hook struct {
	Hook
	name       string // in metrics and file names: a URL may be secret
	console    string
	key        []byte
	client     *http.Client
	metrics    *metrics
	log        *slog.Logger
	cursorFile string
	retry      backoff
	wake       chan struct{}

	mu     sync.Mutex
	queue  []decide.Decision
	cursor cursor
}

// cursor is up to where a hook has had everything. Ids of decisions grow with time.
type cursor struct {
	Since time.Time `json:"since"`          // before the first message
	Last  string    `json:"last,omitempty"` // id of the last decision delivered
}

func (c cursor) before(d decide.Decision) bool {
	if c.Last == "" {
		return d.Time.After(c.Since)
	}
	return d.ID > c.Last
}

type backoff struct{ min, max time.Duration }

func nameOf(u string) string {
	sum := sha256.Sum256([]byte(u))
	return hex.EncodeToString(sum[:4])
}

func (k *hook) add(d decide.Decision) {
	if _, ok := messageOf(d, ""); !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.cursor.before(d) {
		return
	}
	k.queue = append(k.queue, d)
	if len(k.queue) > maxQueued {
		k.queue = k.queue[1:]
		k.metrics.sent.WithLabelValues(k.name, "dropped_queue_full").Inc()
	}
	k.metrics.queued.WithLabelValues(k.name).Set(float64(len(k.queue)))
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *hook) first() (decide.Decision, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.queue) == 0 {
		return decide.Decision{}, false
	}
	return k.queue[0], true
}

// done takes d out, however it ended, and remembers that.
func (k *hook) done(d decide.Decision, result string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.metrics.sent.WithLabelValues(k.name, result).Inc()
	if len(k.queue) > 0 && k.queue[0].ID == d.ID {
		k.queue = k.queue[1:]
	}
	k.metrics.queued.WithLabelValues(k.name).Set(float64(len(k.queue)))
	k.cursor.Last = d.ID
	if err := durable.Save(k.cursorFile, k.cursor); err != nil {
		k.log.Error("cursor of a webhook, it may get messages twice", "hook", k.name, "error", err)
	}
}

// run delivers one message after the other until ctx is done.
func (k *hook) run(ctx context.Context) error {
	delay := k.retry.min
	for {
		d, ok := k.first()
		if !ok {
			select {
			case <-k.wake:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if time.Since(d.Time) > maxAge {
			k.done(d, "dropped_too_old")
			continue
		}
		again, err := k.post(ctx, d, time.Now())
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			k.done(d, "sent")
			delay = k.retry.min
			continue
		case !again:
			k.log.Error("webhook refused a message, it is dropped", "hook", k.name, "decision", d.ID, "error", err)
			k.done(d, "refused")
			continue
		}
		if delay == k.retry.min {
			k.log.Warn("webhook cannot be reached, messages wait", "hook", k.name, "error", err)
		}
		k.metrics.sent.WithLabelValues(k.name, "retried").Inc()
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil
		}
		delay = min(2*delay, k.retry.max)
	}
}

// post sends one message; again says whether an error may pass.
func (k *hook) post(ctx context.Context, d decide.Decision, now time.Time) (again bool, _ error) {
	m, _ := messageOf(d, k.console)
	body, err := m.body(k.Format)
	if err != nil {
		return false, fmt.Errorf("encode message: %w", err)
	}
	status, err := webhook.Post(ctx, k.client, k.URL, k.key, d.ID, now, body)
	return err != nil && webhook.Again(status), err
}

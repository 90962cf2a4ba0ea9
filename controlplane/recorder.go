package controlplane

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// DecisionStore keeps decisions for the long run.
type DecisionStore interface {
	// SaveDecision is called again with the same ID when a decision has been
	// programmed and when an earlier call failed; the last call wins.
	SaveDecision(ctx context.Context, d decide.Decision) error
}

const (
	maxUnsaved   = 1000
	saveTimeout  = 5 * time.Second
	saveRetryMin = 250 * time.Millisecond
	saveRetryMax = 15 * time.Second
	saveAgain    = 24 * time.Hour // how old a decision of an earlier run may be to be saved again
)

// recorder saves decisions in the background. Its queue is bounded: when it is
// full the oldest goes, counted; the journal on disk still has it.
type recorder struct {
	store   DecisionStore
	metrics *metrics
	log     *slog.Logger
	wake    chan struct{}

	mu    sync.Mutex
	queue []decide.Decision
}

func newRecorder(store DecisionStore, m *metrics, log *slog.Logger) *recorder {
	return &recorder{store: store, metrics: m, log: log, wake: make(chan struct{}, 1)}
}

// add never blocks. A decision that waits is replaced by its newer version.
func (r *recorder) add(d decide.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	replaced := false
	for i := range r.queue {
		if r.queue[i].ID == d.ID {
			r.queue[i], replaced = d, true
		}
	}
	if !replaced {
		r.queue = append(r.queue, d)
	}
	if len(r.queue) > maxUnsaved {
		r.queue = r.queue[1:]
		r.metrics.saves.WithLabelValues("dropped_queue_full").Inc()
	}
	r.metrics.queued.Set(float64(len(r.queue)))
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// addPast takes what an earlier run has decided. What of it was not saved then, nobody knows:
// all that is not too old is saved again.
func (r *recorder) addPast(ds []decide.Decision, now time.Time) {
	for _, d := range ds {
		if now.Sub(d.Time) < saveAgain {
			r.add(d)
		}
	}
}

func (r *recorder) unsaved() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue)
}

func (r *recorder) first() (decide.Decision, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return decide.Decision{}, false
	}
	return r.queue[0], true
}

// done takes d out, unless a newer version of it came meanwhile.
func (r *recorder) done(d decide.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) > 0 && reflect.DeepEqual(r.queue[0], d) {
		r.queue = r.queue[1:]
	}
	r.metrics.queued.Set(float64(len(r.queue)))
}

// run saves until ctx is done, then tries once more for what is left.
func (r *recorder) run(ctx context.Context) error {
	delay := saveRetryMin
	for {
		d, ok := r.first()
		if !ok {
			select {
			case <-r.wake:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if ctx.Err() != nil {
			r.drain(context.WithoutCancel(ctx))
			return nil
		}
		if err := r.save(ctx, d); err != nil && ctx.Err() == nil {
			if delay == saveRetryMin {
				r.log.Warn("decisions cannot be saved, they wait", "error", err, "waiting", r.unsaved())
			}
			r.metrics.saves.WithLabelValues("retried").Inc()
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
			delay = min(2*delay, saveRetryMax)
			continue
		}
		delay = saveRetryMin
	}
}

func (r *recorder) save(ctx context.Context, d decide.Decision) error {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if err := r.store.SaveDecision(ctx, d); err != nil {
		return err
	}
	r.done(d)
	r.metrics.saves.WithLabelValues("saved").Inc()
	return nil
}

// drain has one grace period for the whole queue.
func (r *recorder) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	for d, ok := r.first(); ok; d, ok = r.first() {
		if err := r.save(ctx, d); err != nil {
			r.log.Warn("decisions were not saved, the journal has them", "waiting", r.unsaved(), "error", err)
			return
		}
	}
}

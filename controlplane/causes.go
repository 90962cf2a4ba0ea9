package controlplane

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// CauseSource suggests why pools are bad: kernel probes, for example.
type CauseSource interface {
	// Causes returns sentences by pool, worst first.
	Causes(ctx context.Context) (map[decide.Pool][]string, error)
}

const (
	causesEvery   = time.Second
	causesTimeout = 500 * time.Millisecond
	// causesFresh is how old causes may be to explain a decision.
	causesFresh = 5 * time.Second
)

// causes holds the last answer of a source. Decisions do not wait for one: they take
// what is there.
type causes struct {
	source CauseSource // nil: none
	log    *slog.Logger
	last   atomic.Pointer[answer]
}

type answer struct {
	at     time.Time
	causes map[decide.Pool][]string
}

// run asks again and again until ctx is done.
func (c *causes) run(ctx context.Context) error {
	if c.source == nil {
		return nil
	}
	tick := time.NewTicker(causesEvery)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		err := c.ask(ctx)
		if ctx.Err() == nil && (err != nil) != failed {
			failed = err != nil
			c.log.Info("decisions are explained by kernel probes", "works", !failed, "error", err)
		}
	}
}

func (c *causes) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, causesTimeout)
	defer cancel()
	got, err := c.source.Causes(ctx)
	if err != nil {
		return err
	}
	c.last.Store(&answer{at: time.Now(), causes: got})
	return nil
}

// at returns what was fresh at now.
func (c *causes) at(now time.Time) map[decide.Pool][]string {
	a := c.last.Load()
	if a == nil || now.Sub(a.at) > causesFresh {
		return nil
	}
	return a.causes
}

const (
	maxUnexplained = 100
	// explainFor is how long after a decision causes are still its own.
	explainFor = 5 * time.Second
)

// explain adds causes to decisions that were taken before there were any.
func (l *loop) explain(found map[decide.Pool][]string, now time.Time) {
	var rest []decide.Decision
	for _, d := range l.unexplained {
		causes := found[decide.Pool{Service: d.Service, Name: d.FromPool}]
		switch {
		case len(causes) > 0:
			f := finding{d.ID, causes}
			l.addCauses(f, now)
			l.answered(f)
		case now.Sub(d.Time) < explainFor:
			rest = append(rest, d)
		}
	}
	l.unexplained = rest
}

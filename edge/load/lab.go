package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
)

// setupTime bounds registering, logging in and connecting of all groups.
const setupTime = 10 * time.Minute

// lab is a run: crowds that press, and what may be done to the product meanwhile.
type lab struct {
	cfg       Config
	log       *slog.Logger
	control   *ctlapi.Client
	admin     *admin
	decisions *decisions
	crowds    []*crowd
	start     time.Time // of the load
	end       time.Time
}

// run gathers the crowds, plays the story while they press, waits until all is quiet
// and completes the ledgers. Everything it starts has ended when it returns.
func run(ctx context.Context, cfg Config, log *slog.Logger, story func(context.Context, *lab) error) (*lab, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	l := &lab{cfg: cfg, log: log, control: newControl(cfg), admin: newAdmin(cfg), decisions: newDecisions()}
	g.Go(func() error { return follow(ctx, l.control, l.decisions) })
	err := l.play(ctx, g, story)
	cancel()
	if werr := g.Wait(); err == nil || ctx.Err() != nil && werr != nil {
		err = werr // what made the rest stop
	}
	return l, err
}

func (l *lab) play(ctx context.Context, g *errgroup.Group, story func(context.Context, *lab) error) error {
	if err := l.gather(ctx, g); err != nil {
		return fmt.Errorf("gather the crowds: %w", err)
	}
	if err := l.press(ctx, story); err != nil {
		return err
	}
	l.log.Info("load has ended, waiting for messages on their way")
	settle, done := context.WithTimeout(ctx, l.cfg.Settle)
	defer done()
	for _, c := range l.crowds {
		c.settle(settle)
	}
	for _, c := range l.crowds {
		if err := c.reconcile(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (l *lab) gather(ctx context.Context, g *errgroup.Group) error {
	setup, done := context.WithTimeout(ctx, setupTime)
	defer done()
	name := strings.ToLower("lab-" + rand.Text()[:6])
	for i, spec := range l.cfg.Groups {
		c, err := gather(setup, l.cfg, spec, fmt.Sprintf("%s-%d", name, i))
		if err != nil {
			return err
		}
		c.connect(ctx, g)
		l.crowds = append(l.crowds, c)
	}
	for _, c := range l.crowds {
		if err := c.ready(setup); err != nil {
			return err
		}
		l.log.Info("group is connected", "group", c.id, "name", c.Name, "users", len(c.people))
	}
	return nil
}

// press runs the load while the story is told.
func (l *lab) press(ctx context.Context, story func(context.Context, *lab) error) error {
	load, stop := context.WithCancel(ctx)
	defer stop()
	l.start = time.Now().Add(100 * time.Millisecond)
	var wg sync.WaitGroup
	for i, c := range l.crowds {
		// Groups do not start in step, so that three requests do not come at once.
		offset := time.Duration(float64(i) / float64(len(l.crowds)) / l.cfg.Rate * float64(time.Second))
		start := l.start.Add(offset)
		wg.Go(func() { c.press(load, l.cfg, start) })
	}
	err := story(ctx, l)
	stop()
	l.end = time.Now()
	wg.Wait()
	return err
}

// crowd finds a group by name.
func (l *lab) crowd(name string) *crowd {
	for _, c := range l.crowds {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// within puts a policy into force while do runs, and the one before back at the end.
func (l *lab) within(ctx context.Context, policy, before []byte, reason string, do func() error) (err error) {
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTime)
		defer cancel()
		if rerr := l.control.PutPolicy(clean, before, operator, "as it was"); rerr != nil {
			err = errors.Join(err, fmt.Errorf("put the policy back: %w", rerr))
		}
	}()
	if err := l.putPolicy(ctx, policy, reason); err != nil {
		return err
	}
	return do()
}

// putPolicy returns when the document is in force at every edge.
func (l *lab) putPolicy(ctx context.Context, document []byte, reason string) error {
	if err := l.control.PutPolicy(ctx, document, operator, reason); err != nil {
		return fmt.Errorf("put a policy: %w", err)
	}
	digest := ctlapi.DigestOf(document)
	if !poll(ctx, time.Now().Add(l.cfg.Wait), func() bool {
		p, err := l.control.Policy(ctx)
		s, serr := l.control.Status(ctx)
		return err == nil && serr == nil && ctlapi.DigestOf([]byte(p.Document)) == digest && s.Version == s.LastGood
	}) {
		return errors.New("put a policy: it did not come into force")
	}
	return nil
}

// connected says whether everybody has a connection.
func (l *lab) connected() bool {
	for _, c := range l.crowds {
		for _, p := range c.people {
			if _, ok := p.session.Hello(); !ok {
				return false
			}
		}
	}
	return true
}

// until waits for a moment, and says whether ctx was still alive then.
func until(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// poll asks ok every 20 ms, until it says yes, the moment has come or ctx is done.
func poll(ctx context.Context, by time.Time, ok func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case now := <-tick.C:
			if now.After(by) {
				return ok()
			}
		case <-ctx.Done():
			return false
		}
	}
	return true
}

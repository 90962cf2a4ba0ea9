package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tracegate/tracegate/edge/envoy"
)

// line is the Envoys of an edge, one after the other. One goroutine owns it.
type line struct {
	cfg    Config
	log    *slog.Logger
	binary string // of now

	now     *envoy.Process
	before  *envoy.Process // drains, and ends by itself; nil: there is none
	epoch   int            // of the next
	unwatch func()
}

// next starts an Envoy, which takes over from the one that runs where there is one.
func (l *line) next(ctx context.Context) error {
	p, err := start(l.cfg, l.binary, l.epoch, l.log)
	if err != nil {
		return err
	}
	l.log.Info("envoy started", "pid", p.PID(), "binary", l.binary, "admin", l.cfg.Bootstrap.Admin, "epoch", l.epoch)
	l.epoch++
	l.now, l.before = p, l.now
	l.watch(ctx)
	return nil
}

// watch follows the present Envoy and no other: the one before has no admin interface
// any more.
func (l *line) watch(ctx context.Context) {
	if l.unwatch != nil {
		l.unwatch()
	}
	p, watched := l.now, make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(watched)
		if p.WaitReady(ctx) == nil {
			l.log.Info("envoy is ready")
			watchUncolored(ctx, p.Admin(), l.log)
		}
	}()
	l.unwatch = func() { cancel(); <-watched }
}

// run is the owner. What can happen: an upgrade is asked for, the Envoy before has
// ended, the present one has, the end.
func (l *line) run(ctx context.Context) error {
	defer func() { l.unwatch() }()
	for {
		upgrade, ended := l.cfg.Upgrade, (<-chan struct{})(nil)
		if l.before != nil {
			upgrade, ended = nil, l.before.Ended() // Envoy knows one generation before it
		}
		select {
		case <-upgrade:
			if err := l.upgrade(ctx); err != nil {
				l.log.Error("envoy is not replaced, the present one goes on", "error", err)
			}
		case <-ended:
			l.log.Info("the envoy before has ended", "pid", l.before.PID(), "error", l.before.Err())
			l.before = nil
		case <-l.now.Ended():
			if l.before != nil {
				l.before.Kill() // nobody is left to take its sockets
			}
			if err := l.now.Err(); err != nil {
				return err
			}
			return errors.New("envoy ended by itself")
		case <-ctx.Done():
			return l.drain(ctx)
		}
	}
}

// readyTime bounds how long a successor may take to have its configuration and its
// filter compiled.
const readyTime = 2 * time.Minute

// upgrade has the binary and the bootstrap of now take over.
func (l *line) upgrade(ctx context.Context) error {
	binary, err := envoy.Find(ctx, l.cfg.Envoy, l.cfg.CacheDir, l.log)
	if err != nil {
		return fmt.Errorf("find envoy: %w", err)
	}
	if err := envoy.HandsOver(ctx, l.binary, binary); err != nil {
		return err
	}
	was, old := l.binary, l.now
	l.binary = binary
	if err := l.next(ctx); err != nil {
		l.binary = was
		return err
	}
	wait, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := l.now.WaitReady(wait); err != nil {
		l.now.Kill()
		l.now, l.before, l.binary = old, nil, was
		l.epoch-- // it was never taken
		l.watch(ctx)
		return fmt.Errorf("start the next envoy: %w", err)
	}
	l.log.Info("the next envoy serves, the one before drains", "before", l.before.PID(), "drain", l.cfg.Drain)
	return nil
}

func (l *line) drain(ctx context.Context) error {
	l.log.Info("draining envoy", "deadline", l.cfg.Drain)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.Drain)
	defer cancel()
	err := l.now.Stop(drain)
	if l.before != nil {
		l.before.Kill()
	}
	return err
}

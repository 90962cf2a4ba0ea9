package envoy

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Stop drains and ends Envoy, in this order:
//
//  1. /healthcheck/fail: load balancers stop sending, /ready answers 503, and
//     clients are told to close with their next response;
//  2. /drain_listeners: no new connections (after the drain time where a balancer
//     may need it, see Options.Drain);
//  3. wait until no request and no upgraded connection is open, or ctx is done;
//  4. /quitquitquit, and five seconds later a kill.
//
// It returns how Envoy ended; requests that were cut by ctx are in the log.
func (p *Process) Stop(ctx context.Context) error {
	defer p.Kill()
	command := func(path string) {
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := p.admin.Post(c, path); err != nil && !p.isEnded() {
			p.log.Warn("envoy refused a command", "command", path, "error", err)
		}
	}
	command("/healthcheck/fail")
	command("/drain_listeners?graceful&skip_exit")
	if open, err := p.waitIdle(ctx); err != nil && !p.isEnded() {
		p.log.Warn("stopping envoy with open requests", "open", open, "reason", err)
	}
	command("/quitquitquit")
	select {
	case <-p.ended:
		return p.err
	case <-time.After(5 * time.Second):
		return errors.New("envoy did not end when asked to; killed")
	}
}

// waitIdle waits for the end of all requests; an upgraded connection counts as one.
func (p *Process) waitIdle(ctx context.Context) (open uint64, err error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if open, err = p.openRequests(ctx); err == nil && open == 0 {
			return 0, nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return 0, nil
		case <-ctx.Done():
			return open, ctx.Err()
		}
	}
}

// openRequests counts what clients have open, not the question itself.
func (p *Process) openRequests(ctx context.Context) (uint64, error) {
	stats, err := p.admin.Stats(ctx, `^http\..*\.downstream_rq_active$`)
	var open uint64
	for name, n := range stats {
		if !strings.HasPrefix(name, "http.admin.") {
			open += n
		}
	}
	return open, err
}

func (p *Process) isEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

package account

import (
	"context"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// gate lets a fixed number in at a time and a bounded number wait for a bounded time.
type gate struct {
	inside  chan struct{}
	waiting chan struct{} // those inside as well
	wait    time.Duration
}

func newGate(inside, waiting int, wait time.Duration) *gate {
	return &gate{inside: make(chan struct{}, inside), waiting: make(chan struct{}, inside+waiting), wait: wait}
}

// enter returns the function that leaves again.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	busy := protocol.NewError(protocol.CodeUnavailable, "", "too many logins at the moment")
	select {
	case g.waiting <- struct{}{}:
	default:
		return nil, busy
	}
	timeout := time.NewTimer(g.wait)
	defer timeout.Stop()
	select {
	case g.inside <- struct{}{}:
		return func() { <-g.inside; <-g.waiting }, nil
	case <-timeout.C:
		err = busy
	case <-ctx.Done():
		err = ctx.Err()
	}
	<-g.waiting
	return nil, err
}

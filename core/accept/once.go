package accept

import (
	"sync/atomic"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// once calls f with the log's answer, or with a timeout where that comes too late.
type once struct {
	called atomic.Bool
	timer  *time.Timer
	f      func(error)
}

func newOnce(timeout time.Duration, f func(error)) *once {
	o := &once{f: f}
	o.timer = time.AfterFunc(timeout, func() {
		if o.called.CompareAndSwap(false, true) {
			f(protocol.NewError(protocol.CodeUnavailable, "", "not known to be accepted in time: send it again under the same client_id"))
		}
	})
	return o
}

func (o *once) done(err error) {
	if !o.called.CompareAndSwap(false, true) {
		return
	}
	o.timer.Stop()
	if err != nil {
		err = &logError{err}
	}
	o.f(err)
}

// logError is what a sender sees of the log's troubles: that trying again may help.
type logError struct{ cause error }

func (e *logError) Error() string { return e.cause.Error() }

// Unwrap gives the cause to logs and, as a *protocol.Error, the answer to the sender.
func (e *logError) Unwrap() []error {
	return []error{
		protocol.NewError(protocol.CodeUnavailable, "", "the message log is not available: send it again under the same client_id"),
		e.cause,
	}
}

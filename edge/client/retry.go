package client

import (
	"context"
	"errors"
	"time"
)

// ErrUnknownOutcome is wrapped by the error of a call that was given up although
// one of its attempts may have taken effect: the connection broke, or the time was
// over, before the reply came. A message sent so may or may not arrive (never twice).
var ErrUnknownOutcome = errors.New("outcome unknown")

// Retry bounds the repetition of a call.
type Retry struct {
	// Attempts is the most that one call makes, the first included.
	Attempts int
	// Base and Max bound the pause between attempts: a random share ("full jitter")
	// of Base doubled each time, never more than Max. Reconnects use the same pauses
	// but no bound on their number.
	Base, Max time.Duration
}

// Pause is how long to wait after attempt (0 is the first) given a random number
// in [0, 1).
//
// Full jitter spreads clients that failed together best of the usual variants:
// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
func (r Retry) Pause(attempt int, random float64) time.Duration {
	ceiling := r.Base
	for range attempt {
		if ceiling >= r.Max {
			break
		}
		ceiling *= 2
	}
	return time.Duration(random * float64(min(ceiling, r.Max)))
}

// sleep waits for d and says whether ctx was still alive then.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

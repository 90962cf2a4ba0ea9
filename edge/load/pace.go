package load

import (
	"context"
	"sync"
	"time"
)

// pace starts do(i, due) for i = 0, 1, ... at start + i/rate, each in its own goroutine,
// until ctx is done; then it waits for those under way. When limit of them are under way
// the next is not started and shed is called instead.
//
// A start that comes late (the machine was busy) comes at once, with the due time it
// should have had, so the delay shows as latency.
func pace(ctx context.Context, start time.Time, rate float64, limit int, do, shed func(i int, due time.Time)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, limit)
	timer := time.NewTimer(time.Until(start))
	defer timer.Stop()
	for i := 0; ; i++ {
		due := start.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				do(i, due)
			})
		default:
			shed(i, due)
		}
	}
}

package file

import (
	"context"
	"fmt"
	"time"
)

// sweepBatch is how many files are deleted between two looks at the database.
const sweepBatch = 100

// Run deletes what nobody needs any more, now and then, until ctx is done. Several
// processes may do that at the same time.
func (f *Files) Run(ctx context.Context) error {
	tick := time.NewTicker(f.cfg.Every)
	defer tick.Stop()
	for {
		if err := f.Sweep(ctx); err != nil && ctx.Err() == nil {
			f.metrics.sweepErrors.Inc()
			f.log.Warn("sweep files, going on at the next one", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Sweep deletes the files that no message has carried for the grace.
func (f *Files) Sweep(ctx context.Context) error {
	before := f.now().Add(-f.cfg.Grace)
	for {
		ids, err := f.store.DoomFiles(ctx, before, sweepBatch)
		if err != nil {
			return fmt.Errorf("doom files: %w", err)
		}
		for _, id := range ids {
			if err := f.remove(ctx, id); err != nil {
				return err
			}
			f.metrics.swept.Inc()
		}
		if len(ids) < sweepBatch {
			return f.blobs.Sweep(ctx, before)
		}
	}
}

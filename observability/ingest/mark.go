package ingest

import (
	"context"
	"time"

	"github.com/tracegate/tracegate/observability/ingest/otlp"
)

// Marker keeps watermarks; *store.Store is one.
type Marker interface {
	// Mark notes that a receiver has stored all that it was given until then.
	Mark(ctx context.Context, receiver string, until time.Time) error
}

// Mark says every Config.MarkEvery, until ctx is done, that all spans which were received
// are stored, whenever that is so. While there is traffic it seldom is, and the spans
// themselves say how new the statistics are; while there is none, this tells silence from
// a fault between here and the statistics.
func (i *Ingest) Mark(ctx context.Context, receiver string, to Marker) error {
	tick := time.NewTicker(i.cfg.MarkEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if i.stored() {
				i.mark(ctx, receiver, now, to)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// stored says whether no span waits, in memory or on disk: neither one of a batch that is
// under way while later ones are stored. The newest span of the statistics says no such
// thing: with several writers, or a spool, an earlier one may come after it.
func (i *Ingest) stored() bool {
	f := i.Account().Tables[otlp.Traces]
	return f.Pending == 0 && f.Spooled == 0
}

// mark leaves an error alone: without a mark nothing is decided, and that is said there.
func (i *Ingest) mark(ctx context.Context, receiver string, until time.Time, to Marker) {
	ctx, cancel := context.WithTimeout(ctx, i.cfg.StoreTimeout)
	defer cancel()
	if err := to.Mark(ctx, receiver, until); err != nil {
		i.log.Debug("watermark is not written", "error", err)
	}
}

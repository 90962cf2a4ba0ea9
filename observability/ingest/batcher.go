package ingest

import (
	"context"
	"slices"
	"time"

	"github.com/tracegate/tracegate/observability/ingest/otlp"
	"github.com/tracegate/tracegate/observability/store"
)

// records are rows: spans, points of metrics, or log records.
type records struct {
	spans  []store.Span
	points []store.Point
	logs   []store.Log
}

func (r records) len() int { return len(r.spans) + len(r.points) + len(r.logs) }

// table is whose account rows of one table are in.
func (r records) table() otlp.Table {
	switch {
	case len(r.points) > 0:
		return otlp.Metrics
	case len(r.logs) > 0:
		return otlp.Logs
	}
	return otlp.Traces
}

// kind is what rows have in common that one insert takes.
func (r records) kind() string {
	if len(r.points) > 0 {
		return string(otlp.Metrics) + "/" + string(r.points[0].Kind)
	}
	return string(r.table())
}

// byTable cuts r so that each part is of one table, which has it whole or not at all.
func (r records) byTable() []records {
	var parts []records
	if len(r.spans) > 0 {
		parts = append(parts, records{spans: r.spans})
	}
	if len(r.logs) > 0 {
		parts = append(parts, records{logs: r.logs})
	}
	part := map[store.PointKind]int{}
	for _, p := range r.points {
		i, ok := part[p.Kind]
		if !ok {
			i = len(parts)
			part[p.Kind] = i
			parts = append(parts, records{})
		}
		parts[i].points = append(parts[i].points, p)
	}
	return parts
}

// submission is what one message adds to a batch. Its sender is answered through done,
// which has room for the answer.
type submission struct {
	rows records
	size int64
	done chan error
}

// batch is what is stored together.
type batch struct {
	count int // of rows
	size  int64
	parts []submission
}

func (b *batch) add(s submission) {
	b.count += s.rows.len()
	b.size += s.size
	b.parts = append(b.parts, s)
}

// rows are those of all parts, copied once.
func (b *batch) rows() records {
	if len(b.parts) == 1 {
		return b.parts[0].rows
	}
	var spans [][]store.Span
	var points [][]store.Point
	var logs [][]store.Log
	for _, p := range b.parts {
		spans, points, logs = append(spans, p.rows.spans), append(points, p.rows.points), append(logs, p.rows.logs)
	}
	return records{slices.Concat(spans...), slices.Concat(points...), slices.Concat(logs...)}
}

// answer tells every sender.
func (b *batch) answer(err error) {
	for _, p := range b.parts {
		p.done <- err
	}
}

// batcher gathers submissions into batches. Its state belongs to run's goroutine.
type batcher struct {
	cfg Config
	in  <-chan submission
	out chan<- *batch

	current *batch
	due     time.Time // when current must end; zero while it is empty
	last    time.Time // when the last batch ended
}

// run ends when in is closed, after the last batch; it closes out. What can happen:
// a submission comes (while the current batch has room), the batch is due and the
// writer takes it, time passes.
func (b *batcher) run() {
	defer close(b.out)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	b.current = &batch{}
	for {
		out, wait := b.next(time.Now())
		timer.Reset(wait)
		select {
		case s, ok := <-b.in:
			if !ok {
				if b.current.count > 0 {
					b.out <- b.current
				}
				return
			}
			b.add(s, time.Now())
		case out <- b.current:
			b.current, b.due, b.last = &batch{}, time.Time{}, time.Now()
		case <-timer.C:
		}
	}
}

// next is the channel to offer the current batch to, nil while it is not due, and how
// long to wait until it is.
func (b *batcher) next(now time.Time) (chan<- *batch, time.Duration) {
	switch {
	case b.current.count == 0:
		return nil, time.Hour
	case !now.Before(b.due) || b.current.count >= b.cfg.FlushRows || b.current.size >= b.cfg.FlushBytes:
		return b.out, time.Hour
	}
	return nil, b.due.Sub(now)
}

// add is bounded by the ledger: what is in here is pending there.
func (b *batcher) add(s submission, now time.Time) {
	if b.current.count == 0 {
		b.due = now.Add(b.cfg.FlushAfter)
		if earliest := b.last.Add(b.cfg.FlushEvery); b.due.Before(earliest) {
			b.due = earliest
		}
	}
	b.current.add(s)
}

// submit hands rows over; wait returns once they are stored or spooled. When ctx ends
// first they are stored all the same, and the sender does not know.
func submit(ctx context.Context, in chan<- submission, rows records, size int64) (wait func() error) {
	s := submission{rows: rows, size: size, done: make(chan error, 1)}
	in <- s // the batcher takes at once: it never waits for anything else
	return func() error {
		select {
		case err := <-s.done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

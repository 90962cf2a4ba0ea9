package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// queue is a span processor that sends ended spans in batches, several at once.
type queue struct {
	cfg      Config
	exporter sdktrace.SpanExporter
	metrics  *metrics
	log      *slog.Logger

	spans   chan sdktrace.ReadOnlySpan
	flush   chan chan struct{} // answered when what ended before has been sent
	stop    chan struct{}      // closed: send the rest and end
	stopped sync.Once
	done    chan struct{} // closed: run has ended
	// sending is cut when Shutdown's context ends.
	sending context.Context //nolint:containedctx // of the goroutine that run is, not of a call
	cut     context.CancelFunc
}

func newQueue(cfg Config, exporter sdktrace.SpanExporter, reg prometheus.Registerer, log *slog.Logger) *queue {
	q := &queue{
		cfg: cfg, exporter: exporter, log: log,
		spans: make(chan sdktrace.ReadOnlySpan, cfg.Queue), flush: make(chan chan struct{}), stop: make(chan struct{}), done: make(chan struct{}),
	}
	q.metrics = newMetrics(reg, func() float64 { return float64(len(q.spans)) })
	q.sending, q.cut = context.WithCancel(context.Background())
	go q.run()
	return q
}

// OnStart implements [sdktrace.SpanProcessor].
func (q *queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements [sdktrace.SpanProcessor]. It never blocks.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	select {
	case <-q.stop:
		q.metrics.dropped.WithLabelValues(droppedShutdown).Inc()
		return
	default:
	}
	select {
	case q.spans <- s:
	default:
		q.metrics.dropped.WithLabelValues(droppedQueueFull).Inc()
	}
}

// ForceFlush implements [sdktrace.SpanProcessor].
func (q *queue) ForceFlush(ctx context.Context) error {
	answer := make(chan struct{})
	select {
	case q.flush <- answer:
	case <-q.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-answer:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Shutdown implements [sdktrace.SpanProcessor].
func (q *queue) Shutdown(ctx context.Context) error {
	q.stopped.Do(func() { close(q.stop) })
	defer q.cut()
	select {
	case <-q.done:
	case <-ctx.Done():
		q.cut() // batches under way fail and are counted
		<-q.done
	}
	for n := len(q.spans); n > 0; n-- { // ended while the rest was sent
		<-q.spans
		q.metrics.dropped.WithLabelValues(droppedShutdown).Inc()
	}
	return q.exporter.Shutdown(ctx)
}

// run owns the batch. What can happen: a span ends, the batch is due, a flush or the
// stop is asked for.
func (q *queue) run() {
	defer close(q.done)
	var batch []sdktrace.ReadOnlySpan
	var underway sync.WaitGroup
	slots := make(chan struct{}, q.cfg.Exports)
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	send := func() {
		if len(batch) > 0 {
			slots <- struct{}{} // while all are taken, spans wait in the queue
			full := batch
			underway.Go(func() {
				defer func() { <-slots }()
				q.send(full)
			})
			batch = nil
		}
		due.Reset(time.Hour)
	}
	add := func(s sdktrace.ReadOnlySpan) {
		if len(batch) == 0 {
			due.Reset(q.cfg.Every)
		}
		if batch = append(batch, s); len(batch) == q.cfg.Batch {
			send()
		}
	}
	rest := func() {
		for n := len(q.spans); n > 0; n-- {
			add(<-q.spans)
		}
		send()
		underway.Wait()
	}
	for {
		select {
		case s := <-q.spans:
			add(s)
		case <-due.C:
			send()
		case answer := <-q.flush:
			rest()
			close(answer)
		case <-q.stop:
			rest()
			return
		}
	}
}

func (q *queue) send(batch []sdktrace.ReadOnlySpan) {
	ctx, cancel := context.WithTimeout(q.sending, q.cfg.Timeout)
	defer cancel()
	if err := q.exporter.ExportSpans(ctx, batch); err != nil {
		q.metrics.dropped.WithLabelValues(droppedExport).Add(float64(len(batch)))
		q.log.Warn("spans were not acknowledged and are given up", "spans", len(batch), "error", err)
		return
	}
	q.metrics.exported.Add(float64(len(batch)))
}

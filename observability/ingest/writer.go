package ingest

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"github.com/tracegate/tracegate/observability/ingest/otlp"
	"github.com/tracegate/tracegate/observability/ingest/spool"
	"github.com/tracegate/tracegate/observability/store"
)

// Sink takes batches; *store.Store is one.
type Sink interface {
	// InsertSpans writes all spans or, seen from here, none: called again with the same
	// token after an error, it counts them once.
	InsertSpans(ctx context.Context, token string, spans []store.Span) error
	// InsertPoints does the same with points of one kind.
	InsertPoints(ctx context.Context, token string, points []store.Point) error
	// InsertLogs does the same with log records.
	InsertLogs(ctx context.Context, token string, logs []store.Log) error
}

// errNotKept tells senders that their records are neither stored nor spooled. Errors
// that wrap it and not errTryAgain are for good.
var (
	errNotKept  = errors.New("records could not be kept")
	errTryAgain = errors.New("try again")
)

// writer stores batches, or spools them while the sink is away.
type writer struct {
	cfg    Config
	sink   Sink
	spool  *spool.Spool
	book   *ledger
	groups *groupMetrics
	log    *slog.Logger
	// away is set by a failed try and cleared by the drainer, so that while the sink is
	// away batches go to the spool at once and not after a timeout each.
	away   atomic.Bool
	filled chan struct{} // has room for one: something was spooled
}

// run ends when in is closed and everything in it is settled.
func (w *writer) run(in <-chan *batch) {
	for b := range in {
		b.answer(w.write(b))
	}
}

// write settles one batch, table by table; its size goes with the last. One part's
// failure is that of all senders, who may send again what was kept: OTLP is at least once.
func (w *writer) write(b *batch) error {
	rows := b.rows()
	w.groups.count(rows.spans)
	var errs []error
	parts := rows.byTable()
	for i, part := range parts {
		var size int64
		if i == len(parts)-1 {
			size = b.size
		}
		errs = append(errs, w.writePart(part, size))
	}
	return errors.Join(errs...)
}

// writePart settles rows of one table.
func (w *writer) writePart(part records, size int64) error {
	table, rows := part.table(), part.len()
	token := newToken(table)
	tried := !w.away.Load() || w.spool.Usage().Segments == 0
	if tried {
		// Not the senders' contexts: a batch belongs to many.
		ctx, cancel := context.WithTimeout(context.Background(), w.cfg.StoreTimeout)
		err := w.insert(ctx, token, part)
		cancel()
		switch {
		case err == nil:
			w.away.Store(false)
			w.book.settle(table, rows, size, stored)
			return nil
		case !store.Temporary(err):
			w.log.Error("clickhouse refuses a batch", "rows", rows, "error", err)
			w.book.settle(table, rows, size, dropped(Rejected))
			return fmt.Errorf("%w: %w", errNotKept, err)
		}
		if !w.away.Swap(true) {
			w.log.Warn("clickhouse is away, batches go to the spool", "error", err)
		}
	}
	return w.toSpool(token, part, size, tried)
}

// newToken names a batch for ClickHouse and in the spool, whose account needs its table
// without reading it.
func newToken(t otlp.Table) string { return string(t) + "/" + uuid.Must(uuid.NewV7()).String() }

// tableOf is the table of a token; batches of older versions, which had no table in it,
// are in the account of spans.
func tableOf(token string) otlp.Table {
	if t, _, ok := strings.Cut(token, "/"); ok && slices.Contains(otlp.Tables(), otlp.Table(t)) {
		return otlp.Table(t)
	}
	return otlp.Traces
}

func (w *writer) insert(ctx context.Context, token string, part records) error {
	switch part.table() {
	case otlp.Metrics:
		return w.sink.InsertPoints(ctx, token, part.points)
	case otlp.Logs:
		return w.sink.InsertLogs(ctx, token, part.logs)
	}
	return w.sink.InsertSpans(ctx, token, part.spans)
}

// toSpool keeps a part on disk. One that was tried may have been stored, and goes by its
// token alone.
func (w *writer) toSpool(token string, part records, size int64, tried bool) error {
	table, rows := part.table(), part.len()
	room := w.cfg.SpoolBytes
	if table != otlp.Traces {
		room /= 2 // a flood of log records must not cost the spans, which decide
	}
	payload, err := encode(part)
	if err == nil {
		err = w.spool.Append(spool.Batch{Kind: part.kind(), Token: token, Alone: tried, Rows: rows, Payload: payload}, room)
	}
	switch {
	case err == nil:
		w.book.settle(table, rows, size, spooled)
		select {
		case w.filled <- struct{}{}:
		default:
		}
		return nil
	case errors.Is(err, spool.ErrFull):
		w.book.settle(table, rows, size, dropped(SpoolFull))
		return fmt.Errorf("%w: %w", errNotKept, err)
	}
	w.log.Error("batch could not be spooled", "rows", rows, "error", err)
	w.book.settle(table, rows, size, dropped(SpoolError))
	return fmt.Errorf("%w, %w: %w", errNotKept, errTryAgain, err)
}

// drain moves spooled batches to the sink until ctx ends. A try that fails is the probe
// of whether the sink is back.
func (w *writer) drain(ctx context.Context) {
	backoff := w.cfg.MinBackoff
	for ctx.Err() == nil {
		more, err := w.drainOne(ctx)
		wait := backoff
		switch {
		case err != nil:
			backoff = min(2*backoff, w.cfg.MaxBackoff)
		case more:
			backoff = w.cfg.MinBackoff
			continue
		default:
			backoff = w.cfg.MinBackoff
			wait = time.Hour // until something is spooled
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		case <-w.ready(err):
		}
	}
}

// ready is what ends a pause early: after a failure nothing does.
func (w *writer) ready(err error) <-chan struct{} {
	if err != nil {
		return nil
	}
	return w.filled
}

// drainOne settles the oldest segment. It fails where that is worth another try.
func (w *writer) drainOne(ctx context.Context) (more bool, err error) {
	seg, ok, err := w.spool.Oldest()
	if !ok {
		return false, nil
	}
	if err != nil {
		w.log.Error("spooled segment cannot be read, others go first", "error", err)
		w.spool.Defer(seg)
		return false, err
	}
	table := tableOf(seg.Token)
	part, damaged := decodeSegment(seg)
	if damaged > 0 || seg.Skipped > 0 {
		w.log.Error("spooled segment is damaged, what is left of it is stored", "damaged_rows", damaged, "rows", part.len(), "skipped_bytes", seg.Skipped)
	}
	end := func(to func(*Flow, uint64)) error {
		return w.end(seg, func() {
			w.book.unspool(table, part.len(), to)
			w.book.unspool(table, damaged, dropped(SpoolCorrupt))
		})
	}
	if part.len() == 0 {
		return true, end(stored)
	}
	insertCtx, cancel := context.WithTimeout(ctx, w.cfg.DrainTimeout)
	defer cancel()
	err = w.insert(insertCtx, seg.Token, part)
	switch {
	case err == nil:
		if w.away.Swap(false) {
			w.log.Info("clickhouse is back, draining the spool", "rows", w.spool.Usage().Rows)
		}
		return true, end(stored)
	case !store.Temporary(err):
		w.log.Error("clickhouse refuses a spooled segment", "rows", part.len(), "error", err)
		return true, end(dropped(Rejected))
	}
	w.away.Store(true)
	return false, err
}

// end removes a settled segment and then books it, so that one whose file stays, to be
// settled again under its token, is not booked twice.
func (w *writer) end(seg spool.Segment, book func()) error {
	if err := w.spool.Remove(seg); err != nil {
		w.log.Error("settled segment stays in the spool", "error", err)
		return err
	}
	book()
	return nil
}

// decodeSegment joins the batches of a segment, and counts the rows that are lost.
func decodeSegment(seg spool.Segment) (part records, damaged int) {
	damaged = seg.Damaged
	var whole batch
	for _, b := range seg.Batches {
		rows, err := decode(b.Payload)
		if err != nil || rows.len() != b.Rows {
			damaged += b.Rows
			continue
		}
		whole.add(submission{rows: rows})
	}
	return whole.rows(), damaged
}

// encode is gob, compressed: types and names of fields come with the data, so a spool
// can be read by the next version. Spans stand first, then points, then log records, as
// far as there are any.
func encode(part records) ([]byte, error) {
	var buf bytes.Buffer
	z, err := zstd.NewWriter(&buf, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("encode batch: %w", err)
	}
	enc := gob.NewEncoder(z)
	err = enc.Encode(part.spans)
	if err == nil && len(part.points)+len(part.logs) > 0 {
		err = enc.Encode(part.points)
	}
	if err == nil && len(part.logs) > 0 {
		err = enc.Encode(part.logs)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		return nil, fmt.Errorf("encode batch: %w", err)
	}
	return buf.Bytes(), nil
}

func decode(payload []byte) (part records, err error) {
	z, err := zstd.NewReader(bytes.NewReader(payload), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return records{}, fmt.Errorf("decode batch: %w", err)
	}
	defer z.Close()
	dec := gob.NewDecoder(z)
	if err := dec.Decode(&part.spans); err != nil {
		return records{}, fmt.Errorf("decode batch: %w", err)
	}
	for _, rows := range []any{&part.points, &part.logs} {
		if err := dec.Decode(rows); err != nil && !errors.Is(err, io.EOF) {
			return records{}, fmt.Errorf("decode batch: %w", err)
		}
	}
	return part, nil
}

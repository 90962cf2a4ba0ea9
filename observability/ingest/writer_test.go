package ingest

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/tracegate/tracegate/observability/store"
)

// held is a ClickHouse that says when an insert of spans has begun and ends it when told.
type held struct {
	sink
	begun chan chan<- error
}

func (h *held) InsertSpans(ctx context.Context, token string, spans []store.Span) error {
	end := make(chan error)
	h.begun <- end
	if err := <-end; err != nil {
		return err
	}
	return h.sink.InsertSpans(ctx, token, spans)
}

// TestAnEarlierBatchUnderWayIsNotStored: the batch that came second is stored first and
// acknowledged, and it takes the first one to say that all is stored.
func TestAnEarlierBatchUnderWayIsNotStored(t *testing.T) {
	for name, fails := range map[string]error{"the first is stored": nil, "the first is spooled": errAway} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Writers = 2
			h := &held{sink: sink{tokens: map[string]int{}}, begun: make(chan chan<- error)}
			r := start(t, cfg, h)
			export := func() <-chan error {
				answer := make(chan error, 1)
				go func() {
					_, err := r.traces.Export(t.Context(), message(1, 0))
					answer <- err
				}()
				return answer
			}
			firstAnswer := export()
			first := <-h.begun
			secondAnswer := export()
			second := <-h.begun // the first is under way
			second <- nil
			if err := <-secondAnswer; err != nil {
				t.Fatal(err)
			}
			if a := r.Account(); a.Stored != 1 || a.Pending != 1 || r.stored() {
				t.Errorf("while the first is under way: all stored %t, account %+v", r.stored(), a)
			}
			first <- fails
			if err := <-firstAnswer; err != nil {
				t.Fatal(err)
			}
			if fails != nil {
				again := <-h.begun // from the spool
				if r.stored() {
					t.Error("all is stored while the first is in the spool")
				}
				again <- nil
			}
			eventually(t, "all is stored", r.stored)
			if a := r.Account(); a.Stored != 2 || h.rows() != 2 {
				t.Errorf("account = %+v, sink has %d", a, h.rows())
			}
			balanced(t, r.Account())
		})
	}
}

// crowd is a ClickHouse that fails at random, before it has a batch and after, and counts how
// many inserts are under way. It holds them until as many are as there may be.
type crowd struct {
	sink
	full chan struct{} // closed then
	want int

	mu        sync.Mutex
	now, most int
}

func (c *crowd) InsertSpans(ctx context.Context, token string, spans []store.Span) error {
	c.mu.Lock()
	c.now++
	c.most = max(c.most, c.now)
	if c.now == c.want {
		select {
		case <-c.full:
		default:
			close(c.full)
		}
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.now--
	}()
	<-c.full
	return c.sink.InsertSpans(ctx, token, spans)
}

// TestSeveralWritersLoseAndDoubleNothing: what senders were told is kept is counted once,
// over a restart too, and no more inserts are under way than there are writers and the
// drainer.
func TestSeveralWritersLoseAndDoubleNothing(t *testing.T) {
	cfg := testConfig(t)
	cfg.Writers, cfg.FlushRows = 3, 1
	fails := func(int) error {
		if rand.IntN(5) == 0 {
			return errAway
		}
		return nil
	}
	c := &crowd{sink: sink{tokens: map[string]int{}, fail: fails, failWith: fails}, full: make(chan struct{}), want: cfg.Writers}
	r := start(t, cfg, c)
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 20 {
				if _, err := r.traces.Export(t.Context(), message(3, 0)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
	r.stop()
	a := r.Account()
	balanced(t, a)
	if a.Received != 480 || a.Pending != 0 || a.Stored+a.Spooled != 480 || c.most < 3 || c.most > 4 {
		t.Errorf("account = %+v, at most %d inserts at once", a, c.most)
	}
	r = start(t, cfg, c)
	eventually(t, "spool drained", func() bool { return r.Account().Stored == a.Spooled })
	if _, changed := c.inserts(); c.rows() != 480 || changed > 0 {
		t.Errorf("sink has %d of 480, %d batches changed between tries", c.rows(), changed)
	}
}

// TestOneTableDoesNotWaitForAnother: log records that are slow to store take no writer of
// spans.
func TestOneTableDoesNotWaitForAnother(t *testing.T) {
	cfg := testConfig(t)
	cfg.Writers, cfg.FlushRows, cfg.StoreTimeout = 2, 1, time.Minute
	logs := &collectorlogs.ExportLogsServiceRequest{ResourceLogs: []*logsv1.ResourceLogs{{ScopeLogs: []*logsv1.ScopeLogs{{LogRecords: []*logsv1.LogRecord{{TimeUnixNano: uint64(time.Now().UnixNano())}}}}}}}
	l := &lateLogs{sink: sink{tokens: map[string]int{}}, end: make(chan struct{})}
	r := start(t, cfg, l)
	var g sync.WaitGroup
	for range 4 { // twice the writers
		g.Go(func() {
			if _, err := r.logs.Export(t.Context(), logs); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "log records wait", func() bool { return r.Account().Pending == 4 })
	if _, err := r.traces.Export(t.Context(), message(1, 0)); err != nil {
		t.Error(err)
	}
	close(l.end)
	g.Wait()
	balanced(t, r.Account())
}

// lateLogs is a ClickHouse that takes no log records until end is closed.
type lateLogs struct {
	sink
	end chan struct{}
}

func (l *lateLogs) InsertLogs(ctx context.Context, token string, logs []store.Log) error {
	<-l.end
	return l.sink.InsertLogs(ctx, token, logs)
}

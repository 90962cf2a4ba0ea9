package queue_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/queue"
	"github.com/tracegate/tracegate/core/queue/embedded"
)

// away is what backlog's Kafka says where it does not answer.
const away = -1

// backlog is one whose Kafka says what the returned number is.
func backlog(t *testing.T, max int64) (*queue.Backlog, *atomic.Int64) {
	t.Helper()
	unstored := new(atomic.Int64)
	read := func(context.Context) (int64, error) {
		if n := unstored.Load(); n != away {
			return n, nil
		}
		return 0, errors.New("kafka is away")
	}
	b, err := queue.NewBacklog(max, read, prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"}), prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	return b, unstored
}

func TestBacklogIsFullUntilATenthLessIsLeft(t *testing.T) {
	type step struct {
		unstored int64
		full     bool
	}
	for name, tc := range map[string]struct {
		max   int64
		steps []step
	}{
		"a bound":   {100, []step{{100, false}, {101, true}, {away, true}, {100, true}, {90, true}, {89, false}, {away, false}, {100, false}, {1000, true}}},
		"the least": {1, []step{{1, false}, {2, true}, {1, true}, {0, false}}},
		"no bound":  {0, []step{{1 << 40, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			b, unstored := backlog(t, tc.max)
			if b.Full() {
				t.Error("full before anything is known")
			}
			for i, s := range tc.steps {
				unstored.Store(s.unstored)
				if err := b.Look(t.Context()); (err != nil) != (s.unstored == away) {
					t.Errorf("step %d: %v", i, err)
				}
				if b.Full() != s.full {
					t.Errorf("step %d, %d: full is %v", i, s.unstored, b.Full())
				}
			}
		})
	}
}

func TestBacklogIsLookedAtEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, unstored := backlog(t, 100)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		unstored.Store(101)
		go func() { done <- b.Run(ctx) }()
		synctest.Wait()
		if !b.Full() {
			t.Error("not looked at from the start")
		}
		unstored.Store(away)
		time.Sleep(4500 * time.Millisecond) // of the bubble's clock
		if !b.Full() {
			t.Error("what was known is forgotten")
		}
		unstored.Store(0)
		time.Sleep(time.Second)
		if b.Full() {
			t.Error("not looked at any more after it failed")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestConsumerThatIsAwayRefusesSenders: senders are refused once too much waits, and not
// any more once it is stored.
func TestConsumerThatIsAwayRefusesSenders(t *testing.T) {
	onEach(t, func(t *testing.T, cfg queue.Config) {
		cfg.MaxUnstored = 10
		reg := prometheus.NewRegistry()
		p, err := queue.NewProducer(cfg, tracing(), reg, quiet())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close(context.WithoutCancel(t.Context())) })
		full := func() bool {
			t.Helper()
			err := p.Look(t.Context())
			for giveUp := time.Now().Add(2 * time.Minute); kerr.IsRetriable(err) && time.Now().Before(giveUp); { // a broker's first group
				err = p.Look(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			return p.Full()
		}
		var records []chat.Record // of several partitions
		for i := range 10 {
			records = append(records, message(strings.Repeat("c", 1+i%5), i))
		}
		accept(t, p, records...)
		if full() {
			t.Error("full at its bound")
		}
		accept(t, p, message("c", 10))
		if !full() {
			t.Error("not full, and nothing is stored")
		}
		r := newRecorder()
		stop := consumer(t, cfg, tracing(), r, prometheus.NewRegistry())
		r.wait(t, 11)
		stop() // it has committed by then
		if full() {
			t.Error("full, and everything is stored")
		}
		accept(t, p, records...)
		if full() {
			t.Error("what was stored before is counted again")
		}
		want := `
# HELP core_queue_accepted_total Records handed to the log by result: ok, full (refused, nothing sent), unstored (the same, because too much waits to be stored) or error (not known to be durable).
# TYPE core_queue_accepted_total counter
core_queue_accepted_total{result="error"} 0
core_queue_accepted_total{result="full"} 0
core_queue_accepted_total{result="ok"} 21
core_queue_accepted_total{result="unstored"} 1
# HELP core_queue_backlog_records Records in the log that are not stored yet, of all processes together.
# TYPE core_queue_backlog_records gauge
core_queue_backlog_records 10
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "core_queue_accepted_total", "core_queue_backlog_records"); err != nil {
			t.Error(err)
		}
	})
}

// TestWhatRetentionDeletedDoesNotWait: else a group that has stored nothing since would be
// behind for ever.
func TestWhatRetentionDeletedDoesNotWait(t *testing.T) {
	addr, _ := startEmbedded(t, embedded.Config{Listen: "127.0.0.1:0"})
	cfg := config(t, addr)
	cfg.MaxUnstored = 1
	p := producer(t, cfg, tracing())
	accept(t, p, message("c0", 0), message("c0", 1))
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(t.Context(), cfg.Topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, full := range []bool{true, false} {
		if err := p.Look(t.Context()); err != nil || p.Full() != full {
			t.Errorf("full is %v, want %v: %v", !full, full, err)
		}
		if _, err := admin.DeleteRecords(t.Context(), ends.Offsets()); err != nil {
			t.Fatal(err)
		}
	}
}

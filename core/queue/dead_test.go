package queue_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/queue"
)

// TestDeadLettersAreReadAndReplayed: one refusal is over, one is for ever.
func TestDeadLettersAreReadAndReplayed(t *testing.T) {
	onEach(t, func(t *testing.T, cfg queue.Config) {
		if got, err := queue.Letters(t.Context(), cfg); err != nil || len(got) != 0 {
			t.Fatalf("%v %+v", err, got)
		}
		raw, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		poison := &kgo.Record{Topic: cfg.Topic, Key: []byte("c0"), Value: []byte("no json"), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte("00-x")}}}
		if err := raw.ProduceSync(t.Context(), poison).FirstErr(); err != nil {
			t.Fatal(err)
		}
		r := newRecorder()
		r.refuse = map[string]chat.Reason{"1": chat.ReasonNotMember}
		accept(t, producer(t, cfg, tracing()), message("c0", 0), message("c0", 1), message("c0", 2))
		stop := consumer(t, cfg, tracing(), r, prometheus.NewRegistry())
		r.wait(t, 2)
		got := lettersOf(t, cfg, 2)
		want := []queue.Letter{
			{ID: "0/0", Reason: chat.ReasonUndecodable, Conversation: "c0", Record: "no json"},
			{ID: "0/1", Reason: chat.ReasonNotMember, Conversation: "c0", Record: string(chat.AppendRecord(nil, message("c0", 1)))},
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(queue.Letter{}, "Time", "From", "Detail"), cmpopts.IgnoreUnexported(queue.Letter{})); diff != "" {
			t.Fatal(diff)
		}
		stop()
		if err := queue.Replay(t.Context(), cfg, "0/1", "0/9"); !errors.Is(err, queue.ErrNoLetter) {
			t.Errorf("got %v", err)
		}
		r.mu.Lock()
		r.refuse = nil
		r.mu.Unlock()
		if err := queue.Replay(t.Context(), cfg, "0/0", "0/1"); err != nil {
			t.Fatal(err)
		}
		consumer(t, cfg, tracing(), r, prometheus.NewRegistry())
		r.wait(t, 3)
		if diff := cmp.Diff([]string{"0", "2", "1"}, r.got["c0"]); diff != "" {
			t.Error(diff)
		}
		got = lettersOf(t, cfg, 3) // the poison has become one more
		for i, replayed := range []bool{true, true, false} {
			if (got[i].Replayed != nil) != replayed {
				t.Errorf("%+v", got[i])
			}
		}
		if got[2].Reason != chat.ReasonUndecodable || got[2].Record != "no json" {
			t.Errorf("%+v", got[2])
		}
		// What is delivered again is the same record; a letter that was replayed is another one.
		cfg.Group += ".again"
		again := newRecorder()
		consumer(t, cfg, tracing(), again, prometheus.NewRegistry())
		again.wait(t, 3)
		first, last := r.loggedAt("1")
		if same, _ := again.loggedAt("1"); first.IsZero() || !same.Equal(first) || !last.After(first) {
			t.Errorf("logged at %v, again %v, replayed %v", first, same, last)
		}
	})
}

// lettersOf waits until there are n.
func lettersOf(t *testing.T, cfg queue.Config, n int) []queue.Letter {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		got, err := queue.Letters(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == n {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d letters, want %d: %+v", len(got), n, got)
		}
	}
}

// TestFullBufferByBytes: few long records fill it as many short ones do.
func TestFullBufferByBytes(t *testing.T) {
	cfg := queue.DefaultConfig()
	cfg.Brokers = []string{"127.0.0.1:1"} // nobody is there, so all wait
	cfg.MaxBufferedBytes, cfg.Timeout = 64<<10, time.Second
	p, err := queue.NewProducer(cfg, tracing(), prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	long := message("c0", 0)
	long.Text = string(make([]byte, 10<<10))
	errs := make(chan error, 20)
	for range 20 {
		p.Accept(t.Context(), long, func(err error) { errs <- err })
	}
	full := 0
	for range 20 {
		select {
		case err := <-errs:
			if err == nil {
				t.Error("accepted by nobody")
			}
			if errors.Is(err, queue.ErrFull) {
				full++
			}
		case <-time.After(time.Minute):
			t.Fatal("a sender waits for ever")
		}
	}
	if full < 10 || full == 20 {
		t.Errorf("%d of 20 were refused", full)
	}
}

package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/queue"
	"github.com/tracegate/tracegate/core/queue/embedded"
)

// startEmbedded runs the embedded Kafka and returns its address.
func startEmbedded(t testing.TB, cfg embedded.Config) (addr string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- embedded.Run(ctx, cfg, func(a string) { ready <- a }, slog.New(slog.DiscardHandler)) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	select {
	case addr = <-ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return addr, stop
}

// onEach runs a test against the embedded Kafka and a real one.
func onEach(t *testing.T, test func(t *testing.T, cfg queue.Config)) {
	t.Run("embedded", func(t *testing.T) {
		addr, _ := startEmbedded(t, embedded.Config{Listen: "127.0.0.1:0", Dir: t.TempDir()})
		test(t, config(t, addr))
	})
	t.Run("kafka", func(t *testing.T) { test(t, config(t, kafkaAddr(t))) })
}

func config(t testing.TB, addr string) queue.Config {
	t.Helper()
	return ensured(t, unensured(t, addr))
}

// unensured is a configuration whose topics are not there yet.
func unensured(t testing.TB, addr string) queue.Config {
	t.Helper()
	name := strings.NewReplacer("/", ".", " ", "_", "#", ".").Replace(t.Name()) + fmt.Sprint(time.Now().UnixNano())
	cfg := queue.DefaultConfig()
	cfg.Brokers = []string{addr}
	cfg.Topic, cfg.DeadTopic, cfg.Group = name, name+".dead", name
	cfg.Partitions = 3
	cfg.Linger = time.Millisecond
	cfg.Backoff = 5 * time.Millisecond
	return cfg
}

func ensured(t testing.TB, cfg queue.Config) queue.Config {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := queue.EnsureTopics(t.Context(), cfg, quiet()); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func tracing() queue.Tracing {
	return queue.Tracing{Provider: sdktrace.NewTracerProvider(), Propagator: propagation.TraceContext{}}
}

func producer(t testing.TB, cfg queue.Config, tr queue.Tracing) *queue.Producer {
	t.Helper()
	p, err := queue.NewProducer(cfg, tr, prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = p.Close(ctx)
	})
	return p
}

// consumer runs one until the returned function is called or the test ends.
func consumer(t testing.TB, cfg queue.Config, tr queue.Tracing, h queue.Handler, reg prometheus.Registerer) (stop func()) {
	t.Helper()
	c, err := queue.NewConsumer(cfg, tr, h, reg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func message(conversation string, n int) chat.Record {
	return chat.Record{
		Conversation: conversation, ClientID: fmt.Sprint(n), SenderID: "u1", Sender: "ann", Text: "text",
		SentAt: time.UnixMicro(int64(n)).UTC(), TraceID: strings.Repeat("a", 32),
	}
}

// accept hands records to the log and waits until all are durable.
func accept(t testing.TB, p *queue.Producer, records ...chat.Record) {
	t.Helper()
	errs := make(chan error, len(records))
	for _, r := range records {
		p.Accept(t.Context(), r, func(err error) { errs <- err })
	}
	for range records {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}

// recorder is a handler that dedupes as a store does and may be told to fail.
type recorder struct {
	mu      sync.Mutex
	fail    int // batches still to refuse
	refuse  map[string]chat.Reason
	got     map[string][]string // client ids by conversation, each once, in order of arrival
	seen    map[chat.Key]bool
	logged  map[string][]time.Time // by client id, at each time that it came
	repeats int
	changed chan struct{}
}

func newRecorder() *recorder {
	return &recorder{got: map[string][]string{}, seen: map[chat.Key]bool{}, logged: map[string][]time.Time{}, changed: make(chan struct{}, 1)}
}

func (r *recorder) Store(_ context.Context, batch []chat.Record) ([]chat.Reason, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range batch {
		r.logged[m.ClientID] = append(r.logged[m.ClientID], m.LoggedAt)
	}
	if r.fail > 0 {
		r.fail--
		return nil, errors.New("store is down")
	}
	reasons := make([]chat.Reason, len(batch))
	for i, m := range batch {
		if reason := r.refuse[m.ClientID]; reason != "" {
			reasons[i] = reason
			continue
		}
		if r.seen[m.Key()] {
			r.repeats++
			continue
		}
		r.seen[m.Key()] = true
		r.got[m.Conversation] = append(r.got[m.Conversation], m.ClientID)
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return reasons, nil
}

// loggedAt is when the log took a record, as it came first and last.
func (r *recorder) loggedAt(clientID string) (first, last time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.logged[clientID]
	return list[0], list[len(list)-1]
}

// wait waits until n records have been stored.
func (r *recorder) wait(t testing.TB, n int) {
	t.Helper()
	deadline := time.After(2 * time.Minute) // a busy machine with -race
	for {
		r.mu.Lock()
		have := len(r.seen)
		r.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-r.changed:
		case <-deadline:
			t.Fatalf("%d of %d records stored", have, n)
		}
	}
}

// inOrder checks that each conversation has exactly 0..n-1 in order.
func (r *recorder) inOrder(t testing.TB, conversations, n int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
	}
	for c := range conversations {
		if diff := cmp.Diff(want, r.got[fmt.Sprintf("c%d", c)]); diff != "" {
			t.Errorf("conversation %d: %s", c, diff)
		}
	}
}

func TestAcceptedIsStoredInOrder(t *testing.T) {
	onEach(t, func(t *testing.T, cfg queue.Config) {
		const conversations, n = 5, 200
		r := newRecorder()
		r.fail = 3 // the store is down at first: nothing may be lost or overtaken
		p := producer(t, cfg, tracing())
		var all []chat.Record
		for i := range n {
			for c := range conversations {
				all = append(all, message(fmt.Sprintf("c%d", c), i))
			}
		}
		accept(t, p, all...)
		stopFirst := consumer(t, cfg, tracing(), r, prometheus.NewRegistry())
		r.wait(t, n) // then hand over in the middle
		stopFirst()
		consumer(t, cfg, tracing(), r, prometheus.NewRegistry())
		r.wait(t, conversations*n)
		r.inOrder(t, conversations, n)
	})
}

func TestLeavingCommitsWhatWasStored(t *testing.T) {
	onEach(t, func(t *testing.T, cfg queue.Config) {
		cfg.Instance = "node-1"
		r := newRecorder()
		p := producer(t, cfg, tracing())
		for i := range 3 {
			accept(t, p, message("c0", i))
			stop := consumer(t, cfg, tracing(), r, prometheus.NewRegistry())
			r.wait(t, i+1)
			stop()
		}
		if r.repeats != 0 {
			t.Errorf("%d records came again after an orderly stop", r.repeats)
		}
	})
}

func TestTwoConsumersRebalance(t *testing.T) {
	onEach(t, func(t *testing.T, cfg queue.Config) {
		const conversations, n = 6, 60
		r := newRecorder()
		p := producer(t, cfg, tracing())
		consumer(t, cfg, tracing(), r, prometheus.NewRegistry())
		for i := range n {
			var all []chat.Record
			for c := range conversations {
				all = append(all, message(fmt.Sprintf("c%d", c), i))
			}
			accept(t, p, all...)
			switch i {
			case 10, 30:
				stop := consumer(t, cfg, tracing(), r, prometheus.NewRegistry())
				if i == 10 {
					defer stop()
				} else {
					stop()
				}
			}
		}
		r.wait(t, conversations*n)
		r.inOrder(t, conversations, n)
	})
}

func TestPoisonGoesToTheDeadLetterTopic(t *testing.T) {
	onEach(t, func(t *testing.T, cfg queue.Config) {
		raw, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.ConsumeTopics(cfg.DeadTopic))
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		good := chat.AppendRecord(nil, message("c0", 7))
		poison := []*kgo.Record{
			{Topic: cfg.Topic, Key: []byte("c0"), Value: []byte("no json")},
			{Topic: cfg.Topic, Key: []byte("c0"), Value: nil},
			{Topic: cfg.Topic, Key: []byte("c0"), Value: []byte(`{"v":2}`)},
			{Topic: cfg.Topic, Key: []byte("another"), Value: good},
		}
		if err := raw.ProduceSync(t.Context(), poison...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		r := newRecorder()
		r.refuse = map[string]chat.Reason{"1": chat.ReasonNotMember}
		p := producer(t, cfg, tracing())
		accept(t, p, message("c0", 0), message("c0", 1), message("c0", 2))
		reg := prometheus.NewRegistry()
		consumer(t, cfg, tracing(), r, reg)
		r.wait(t, 2)
		got := map[string]int{}
		for n := 0; n < 5; {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			fetches := raw.PollFetches(ctx)
			cancel()
			if err := fetches.Err(); err != nil {
				t.Fatal(err)
			}
			fetches.EachRecord(func(l *kgo.Record) {
				n++
				var from string
				for _, h := range l.Headers {
					switch h.Key {
					case queue.HeaderReason:
						got[string(h.Value)]++
					case queue.HeaderFrom:
						from = string(h.Value)
					}
				}
				if !strings.HasPrefix(from, cfg.Topic+"/") {
					t.Errorf("from %q", from)
				}
			})
		}
		if diff := cmp.Diff(map[string]int{"undecodable": 4, "not_member": 1}, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"0", "2"}, r.got["c0"]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFullBufferRefusesAtOnce(t *testing.T) {
	addr, stop := startEmbedded(t, embedded.Config{Listen: "127.0.0.1:0"})
	cfg := config(t, addr)
	cfg.MaxBuffered = 2
	cfg.Timeout = time.Second
	reg := prometheus.NewRegistry()
	p, err := queue.NewProducer(cfg, tracing(), reg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	accept(t, p, message("c0", 0))
	stop() // Kafka dies
	errs := make(chan error, 5)
	for i := range 5 {
		p.Accept(t.Context(), message("c0", i+1), func(err error) { errs <- err })
	}
	if fill := p.Fill(); fill < 0.5 || fill > 1 {
		t.Errorf("%v full, with at least one of two records that wait", fill)
	}
	full, failed := 0, 0
	for range 5 {
		select {
		case err := <-errs:
			if errors.Is(err, queue.ErrFull) {
				full++
			} else if err != nil {
				failed++
			}
		case <-time.After(time.Minute):
			t.Fatal("a sender waits for ever")
		}
	}
	// The first record's place may be free only a moment after its sender has been told.
	if full+failed != 5 || failed < 1 || failed > 2 {
		t.Errorf("full %d, failed %d", full, failed)
	}
	want := fmt.Sprintf(`
# HELP core_queue_accepted_total Records handed to the log by result: ok, full (refused, nothing sent), unstored (the same, because too much waits to be stored) or error (not known to be durable).
# TYPE core_queue_accepted_total counter
core_queue_accepted_total{result="error"} %d
core_queue_accepted_total{result="full"} %d
core_queue_accepted_total{result="ok"} 1
core_queue_accepted_total{result="unstored"} 0
`, failed, full)
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "core_queue_accepted_total"); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
}

// TestTraceContinuesThroughTheLog checks ids and baggage on the consumer's side.
func TestTraceContinuesThroughTheLog(t *testing.T) {
	addr, _ := startEmbedded(t, embedded.Config{Listen: "127.0.0.1:0"})
	cfg := config(t, addr)
	spans := tracetest.NewInMemoryExporter()
	seen := &baggageProcessor{got: map[string]string{}}
	tr := queue.Tracing{
		Provider:   sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithSpanProcessor(seen)),
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
		Database:   "sqlite",
	}
	member, _ := baggage.NewMember("traffic.tenant", "search")
	bag, _ := baggage.New(member)
	ctx, root := tr.Provider.Tracer("test").Start(baggage.ContextWithBaggage(t.Context(), bag), "send")
	p := producer(t, cfg, tr)
	done := make(chan error, 1)
	p.Accept(ctx, message("c0", 0), func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	root.End()
	r := newRecorder()
	stop := consumer(t, cfg, tr, r, prometheus.NewRegistry())
	r.wait(t, 1)
	stop()
	names, ids, parents := map[string]bool{}, map[string]trace.SpanID{}, map[string]trace.SpanID{}
	for _, s := range spans.GetSpans() {
		if s.SpanContext.TraceID() != root.SpanContext().TraceID() {
			t.Errorf("span %s is in another trace", s.Name)
		}
		name := strings.TrimPrefix(s.Name, cfg.Topic+" ")
		names[name], ids[name], parents[name] = true, s.SpanContext.SpanID(), s.Parent.SpanID()
	}
	if diff := cmp.Diff(map[string]bool{"send": true, "publish": true, "receive": true, "process": true, "INSERT messages": true}, names); diff != "" {
		t.Error(diff)
	}
	if parents["INSERT messages"] != ids["process"] {
		t.Error("the database is not below what is processed")
	}
	if seen.got[cfg.Topic+" process"] != "search" {
		t.Errorf("baggage of the consumer: %v", seen.got)
	}
}

// baggageProcessor notes the tenant that a span starts with.
type baggageProcessor struct {
	mu  sync.Mutex
	got map[string]string
}

func (p *baggageProcessor) OnStart(ctx context.Context, s sdktrace.ReadWriteSpan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got[s.Name()] = baggage.FromContext(ctx).Member("traffic.tenant").Value()
}
func (*baggageProcessor) OnEnd(sdktrace.ReadOnlySpan)      {}
func (*baggageProcessor) Shutdown(context.Context) error   { return nil }
func (*baggageProcessor) ForceFlush(context.Context) error { return nil }

func TestEmbeddedKeepsRecordsAndOffsets(t *testing.T) {
	dir := t.TempDir()
	r := newRecorder()
	var cfg queue.Config
	for i := range 3 {
		addr, stop := startEmbedded(t, embedded.Config{Listen: "127.0.0.1:0", Dir: dir})
		if i == 0 {
			cfg = config(t, addr)
		}
		cfg.Brokers = []string{addr}
		p := producer(t, cfg, tracing())
		if i == 1 { // stored in the next life
			accept(t, p, message("c0", 1))
		} else {
			accept(t, p, message("c0", i))
			stopConsumer := consumer(t, cfg, tracing(), r, prometheus.NewRegistry())
			r.wait(t, i+1)
			stopConsumer()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_ = p.Close(ctx)
		cancel()
		stop()
	}
	r.inOrder(t, 1, 3)
	if r.repeats != 0 {
		t.Errorf("%d records came again: offsets were lost", r.repeats)
	}
}

func TestThreeCopiesNeedTwoInSync(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for replication, want := range map[int]string{-1: "1", 3: "2"} {
		cfg := queue.DefaultConfig()
		cfg.Brokers, cfg.Replication = cluster.ListenAddrs(), replication
		cfg.Topic = fmt.Sprintf("copies.%d", replication)
		cfg.DeadTopic = cfg.Topic + ".dead"
		if err := queue.EnsureTopics(t.Context(), cfg, quiet()); err != nil {
			t.Fatal(err)
		}
		got, err := kadm.NewClient(client).DescribeTopicConfigs(t.Context(), cfg.Topic, cfg.DeadTopic)
		if err != nil || len(got) != 2 {
			t.Fatal(got, err)
		}
		for _, topic := range got {
			i := slices.IndexFunc(topic.Configs, func(c kadm.Config) bool { return c.Key == "min.insync.replicas" })
			if i < 0 || topic.Configs[i].MaybeValue() != want {
				t.Errorf("replication %d: %s has %v, want min.insync.replicas %s", replication, topic.Name, topic.Configs, want)
			}
		}
	}
}

func TestConfigNamesTheKey(t *testing.T) {
	for want, edit := range map[string]func(*queue.Config){
		"brokers":            func(c *queue.Config) { c.Brokers = nil },
		"topic":              func(c *queue.Config) { c.Topic = "" },
		"dead_topic":         func(c *queue.Config) { c.DeadTopic = c.Topic },
		"partitions":         func(c *queue.Config) { c.Partitions = 0 },
		"replication":        func(c *queue.Config) { c.Replication = 0 },
		"retention":          func(c *queue.Config) { c.Retention = 0 },
		"linger":             func(c *queue.Config) { c.Linger = -1 },
		"max_buffered":       func(c *queue.Config) { c.MaxBuffered = 0 },
		"max_buffered_bytes": func(c *queue.Config) { c.MaxBufferedBytes = 1 },
		"max_unstored":       func(c *queue.Config) { c.MaxUnstored = -1 },
		"timeout":            func(c *queue.Config) { c.Timeout = 0 },
		"group":              func(c *queue.Config) { c.Group = "" },
		"session":            func(c *queue.Config) { c.Session = 0 },
		"batch":              func(c *queue.Config) { c.Batch = 0 },
		"backoff":            func(c *queue.Config) { c.Backoff = 0 },
		"give_up":            func(c *queue.Config) { c.GiveUp = 0 },
		"tls.enabled":        func(c *queue.Config) { c.TLS.CAFile = "ca.crt" },
		"sasl.mechanism":     func(c *queue.Config) { c.SASL.User = "ann" },
		"sasl.user":          func(c *queue.Config) { c.SASL.Mechanism = "SCRAM-SHA-256" },
		"sasl.password_file": func(c *queue.Config) { c.SASL = queue.SASL{Mechanism: "PLAIN", User: "ann"} },
	} {
		cfg := queue.DefaultConfig()
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("want %s, got %v", want, err)
		}
	}
	if err := (embedded.Config{Listen: "0.0.0.0:9092"}).Validate(); err == nil {
		t.Error("embedded kafka listens to the world")
	}
}

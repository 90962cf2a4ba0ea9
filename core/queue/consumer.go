package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/chat"
)

// Handler stores what was accepted.
type Handler interface {
	// Store stores a batch, whose records come in order within a conversation. It must
	// be idempotent: any record may come again, also in a batch that another process
	// has stored meanwhile. It returns for each record why it can never be stored, or
	// "". An error means that nothing is known to be stored; the batch comes again.
	Store(ctx context.Context, batch []chat.Record) ([]chat.Reason, error)
}

// Headers of a dead letter, beside those of the record.
const (
	HeaderReason = "tracegate-reason"
	HeaderDetail = "tracegate-detail"
	HeaderFrom   = "tracegate-from" // topic/partition/offset
)

// Consumer is one member of the group.
type Consumer struct {
	cfg     Config
	brokers []kgo.Opt // how to reach them
	tracing Tracing
	handler Handler
	metrics consumerMetrics
	log     *slog.Logger
}

// NewConsumer prepares a consumer.
func NewConsumer(cfg Config, tracing Tracing, h Handler, reg prometheus.Registerer, log *slog.Logger) (*Consumer, error) {
	brokers, err := cfg.connection()
	if err != nil {
		return nil, fmt.Errorf("new kafka consumer: %w", err)
	}
	m, err := newConsumerMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("register consumer metrics: %w", err)
	}
	return &Consumer{cfg: cfg, brokers: brokers, tracing: tracing, handler: h, metrics: m, log: log}, nil
}

// Run consumes until ctx is done; it then finishes and commits the batch it is at, and
// leaves the group. A consumer that cannot go on leaves the group, so that others may,
// and joins again after a pause. Only a configuration that cannot work is an error.
func (c *Consumer) Run(ctx context.Context) error {
	pause := c.cfg.Backoff
	for {
		start := time.Now()
		err := c.member(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var config *configError
		if errors.As(err, &config) {
			return err
		}
		c.metrics.rejoins.Inc()
		c.log.Warn("consumer left its group and will join again", "error", err)
		if time.Since(start) > time.Minute {
			pause = c.cfg.Backoff
		}
		if sleep(ctx, pause) != nil {
			return nil
		}
		pause = min(2*pause, 20*c.cfg.Backoff)
	}
}

type configError struct{ error }

// member is one membership: join, consume, leave.
func (c *Consumer) member(ctx context.Context) error {
	tracer := c.tracing.kotel(c.cfg.Group)
	own, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	opts := append(slices.Clone(c.brokers),
		kgo.WithContext(own),
		kgo.ConsumerGroup(c.cfg.Group),
		kgo.ConsumeTopics(c.cfg.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // a new group must not skip what was accepted before it
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(c.cfg.Session),
		kgo.HeartbeatInterval(min(c.cfg.Session/4, time.Second)), // also how soon a member sees that others joined or left
		kgo.RebalanceTimeout(4*c.cfg.Session),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), // partitions stay ours from poll to commit
		kgo.FetchMaxWait(time.Second),
		kgo.FetchMaxPartitionBytes(1<<20),
		kgo.WithHooks(kotel.NewKotel(kotel.WithTracer(tracer)).Hooks()...),
		kgo.WithLogger(franzLogger{c.log}),
	)
	if c.cfg.Instance != "" {
		opts = append(opts, kgo.InstanceID(c.cfg.Instance))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return &configError{fmt.Errorf("new kafka consumer: %w", err)}
	}
	defer c.leave(client, abort)
	for {
		fetches := client.PollRecords(ctx, c.cfg.Batch)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := fetches.Err0(); err != nil {
			return fmt.Errorf("poll: %w", err) // the client itself is broken
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			c.metrics.fetchErrors.Inc()
			c.log.Warn("fetch from kafka", "topic", topic, "partition", partition, "error", err)
		})
		if err := c.consume(ctx, client, tracer, fetches); err != nil {
			return err
		}
		client.AllowRebalance()
	}
}

// leave leaves the group and closes the client. A join that is under way is waited for
// only briefly, because it ends when the slowest other member has joined as well.
func (c *Consumer) leave(client *kgo.Client, abort context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	client.AllowRebalance()
	if err := client.LeaveGroupContext(ctx); err != nil {
		abort()
	}
	client.CloseAllowingRebalance()
	if c.cfg.Instance != "" {
		c.forget()
	}
}

// forget tells the group that a static member has gone: its name would keep its
// partitions until the session times out. It must not be told while a join of that
// member is under way, whose answer would then never come.
func (c *Consumer) forget() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	client, err := kgo.NewClient(append(slices.Clone(c.brokers), kgo.WithLogger(franzLogger{c.log}))...)
	if err == nil {
		defer client.Close()
		_, err = kadm.NewClient(client).LeaveGroup(ctx, kadm.LeaveGroup(c.cfg.Group).InstanceIDs(c.cfg.Instance).Reason("shutdown"))
	}
	if err != nil {
		c.log.Warn("leave kafka group", "error", err)
	}
}

// consume stores what was fetched, sends what is refused to the dead-letter topic and
// commits. It goes on to the end of the batch after ctx is done.
func (c *Consumer) consume(ctx context.Context, client *kgo.Client, tracer *kotel.Tracer, fetches kgo.Fetches) error {
	raw := fetches.Records()
	if len(raw) == 0 {
		return nil
	}
	c.metrics.batch.Observe(float64(len(raw)))
	dead := make([]letter, 0)
	records := make([]chat.Record, 0, len(raw))
	from := make([]int, 0, len(raw)) // index in raw of each record
	spans, traces := make([]trace.Span, len(raw)), make([]context.Context, 0, len(raw))
	for i, r := range raw {
		own, span := tracer.WithProcessSpan(r)
		spans[i] = span
		record, err := chat.DecodeRecord(r.Value)
		if err == nil && string(r.Key) != record.Conversation {
			err = errors.New("key is not the conversation") // it would break the order
		}
		if err != nil {
			dead = append(dead, letter{index: i, reason: chat.ReasonUndecodable, detail: err.Error()})
			continue
		}
		record.LoggedAt = r.Timestamp
		records, from, traces = append(records, record), append(from, i), append(traces, own)
	}
	defer func() {
		for _, s := range spans {
			s.End()
		}
	}()
	began := time.Now()
	reasons, err := c.store(ctx, records)
	c.stored(traces, began, err)
	if err != nil {
		for _, s := range spans {
			s.SetStatus(codes.Error, "store")
		}
		return err
	}
	for i, reason := range reasons {
		if reason != "" {
			dead = append(dead, letter{index: from[i], reason: reason})
		}
	}
	if err := c.bury(ctx, client, raw, dead); err != nil {
		return err
	}
	for _, d := range dead {
		spans[d.index].SetStatus(codes.Error, string(d.reason))
	}
	return c.commit(ctx, client, fetches, raw)
}

// stored says in each record's trace how long the database took for the batch that it came
// in, with what was repeated.
func (c *Consumer) stored(traces []context.Context, began time.Time, err error) {
	if c.tracing.Database == "" {
		return
	}
	tracer, end := c.tracing.Provider.Tracer("github.com/tracegate/tracegate/core/queue"), time.Now()
	what := trace.WithAttributes(
		attribute.String("db.system.name", c.tracing.Database), attribute.String("db.operation.name", "INSERT"),
		attribute.String("db.collection.name", "messages"), attribute.Int("db.operation.batch.size", len(traces)))
	for _, own := range traces {
		_, span := tracer.Start(own, "INSERT messages", trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(began), what)
		if err != nil {
			span.SetStatus(codes.Error, "store")
		}
		span.End(trace.WithTimestamp(end))
	}
}

// store retries until the batch is stored, with growing pauses, for at most GiveUp.
func (c *Consumer) store(ctx context.Context, records []chat.Record) ([]chat.Reason, error) {
	if len(records) == 0 {
		return nil, nil
	}
	giveUp := time.Now().Add(c.cfg.GiveUp)
	pause := c.cfg.Backoff
	for {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Timeout)
		reasons, err := c.handler.Store(attempt, records)
		cancel()
		if err == nil && len(reasons) != len(records) {
			err = fmt.Errorf("handler answered for %d of %d records", len(reasons), len(records))
		}
		if err == nil {
			return reasons, nil
		}
		c.metrics.retries.Inc()
		if time.Now().After(giveUp) {
			return nil, fmt.Errorf("store batch: %w", err)
		}
		if pause == c.cfg.Backoff {
			c.log.Warn("store batch, trying on", "records", len(records), "error", err)
		}
		if sleep(ctx, pause) != nil {
			return nil, fmt.Errorf("store batch: %w", err)
		}
		pause = min(2*pause, 20*c.cfg.Backoff)
	}
}

// letter is a record that can never be stored.
type letter struct {
	index  int
	reason chat.Reason
	detail string
}

// bury writes letters to the dead-letter topic, as durably as they were accepted.
func (c *Consumer) bury(ctx context.Context, client *kgo.Client, raw []*kgo.Record, dead []letter) error {
	if len(dead) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Timeout)
	defer cancel()
	out := make([]*kgo.Record, 0, len(dead))
	for _, d := range dead {
		r := raw[d.index]
		headers := append([]kgo.RecordHeader{}, r.Headers...)
		headers = append(headers,
			kgo.RecordHeader{Key: HeaderReason, Value: []byte(d.reason)},
			kgo.RecordHeader{Key: HeaderDetail, Value: []byte(d.detail)},
			kgo.RecordHeader{Key: HeaderFrom, Value: []byte(r.Topic + "/" + strconv.Itoa(int(r.Partition)) + "/" + strconv.FormatInt(r.Offset, 10))})
		out = append(out, &kgo.Record{Topic: c.cfg.DeadTopic, Key: r.Key, Value: r.Value, Headers: headers, Context: r.Context})
	}
	if err := client.ProduceSync(ctx, out...).FirstErr(); err != nil {
		return fmt.Errorf("write dead letters: %w", err)
	}
	for i, d := range dead {
		c.metrics.dead.WithLabelValues(string(d.reason)).Inc()
		c.log.Warn("message can never be stored", "reason", d.reason, "detail", d.detail, "from", string(headerValue(out[i].Headers, HeaderFrom)))
	}
	return nil
}

func headerValue(headers []kgo.RecordHeader, key string) []byte {
	for _, h := range headers {
		if h.Key == key {
			return h.Value
		}
	}
	return nil
}

// commit moves the group's offsets. A commit that fails costs only a repetition.
func (c *Consumer) commit(ctx context.Context, client *kgo.Client, fetches kgo.Fetches, raw []*kgo.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Timeout)
	defer cancel()
	if err := client.CommitRecords(ctx, raw...); err != nil {
		c.metrics.commitErrors.Inc()
		return fmt.Errorf("commit: %w", err)
	}
	c.metrics.consumed.Add(float64(len(raw)))
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if n := len(p.Records); n > 0 {
			lag := p.HighWatermark - p.Records[n-1].Offset - 1
			c.metrics.lag.WithLabelValues(strconv.Itoa(int(p.Partition))).Set(float64(max(lag, 0)))
		}
	})
	return nil
}

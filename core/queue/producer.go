package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"

	"github.com/tracegate/tracegate/core/chat"
)

// ErrFull says that too many records wait for an acknowledgement already. Nothing was
// sent.
var ErrFull = errors.New("too many messages are waiting for the log")

// Producer accepts records. Run looks at what is not stored yet, by which Full says whether
// to accept more. Close it, once Run has ended.
type Producer struct {
	*Backlog
	cfg     Config
	client  *kgo.Client
	metrics producerMetrics
}

// NewProducer prepares a producer; it connects when it is first used. The topic must
// exist, see EnsureTopics.
func NewProducer(cfg Config, tracing Tracing, reg prometheus.Registerer, log *slog.Logger) (*Producer, error) {
	client, err := cfg.connect(
		kgo.DefaultProduceTopic(cfg.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), // idempotent is the default and needs it
		kgo.ProducerLinger(cfg.Linger),
		kgo.MaxBufferedRecords(cfg.MaxBuffered),
		kgo.MaxBufferedBytes(cfg.MaxBufferedBytes),
		kgo.RecordDeliveryTimeout(cfg.Timeout+cfg.Linger),
		// A record whose outcome is unknown would otherwise wait for ever, and with it
		// its sender and its place in the buffer. What it costs, a second copy when the
		// sender tries again, is what the client id is for.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		kgo.WithHooks(kotel.NewKotel(kotel.WithTracer(tracing.kotel(""))).Hooks()...),
		kgo.WithLogger(franzLogger{log}),
	)
	if err != nil {
		return nil, fmt.Errorf("new kafka producer: %w", err)
	}
	m, err := newProducerMetrics(reg, client)
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("register producer metrics: %w", err)
	}
	read := func(ctx context.Context) (int64, error) { return unstored(ctx, kadm.NewClient(client), cfg) }
	backlog, err := NewBacklog(cfg.MaxUnstored, read, m.accepted.WithLabelValues("unstored"), reg, log)
	if err != nil {
		client.Close()
		return nil, err
	}
	return &Producer{Backlog: backlog, cfg: cfg, client: client, metrics: m}, nil
}

// Accept hands a record to the log and returns at once. done is called exactly once:
// with nil when the record is durable, with ErrFull when it was not taken, or with
// another error when it is not known to be durable - it may still become so, and the
// sender may try again under the same client id. done must not block. Records of one
// conversation keep the order of the calls.
//
// Ending ctx does not take the record back; ctx only gives the trace.
func (p *Producer) Accept(ctx context.Context, r chat.Record, done func(error)) {
	start := time.Now()
	record := &kgo.Record{Key: []byte(r.Conversation), Value: chat.AppendRecord(nil, r)}
	p.client.TryProduce(context.WithoutCancel(ctx), record, func(_ *kgo.Record, err error) {
		if errors.Is(err, kgo.ErrMaxBuffered) {
			err = ErrFull
		}
		p.metrics.observe(err, time.Since(start))
		if err != nil && !errors.Is(err, ErrFull) {
			err = fmt.Errorf("produce: %w", err)
		}
		done(err)
	})
}

// Fill is how full the queue is of what waits for an acknowledgement, in records or in
// bytes: 0 to 1.
func (p *Producer) Fill() float64 {
	return max(float64(p.client.BufferedProduceRecords())/float64(p.cfg.MaxBuffered), float64(p.client.BufferedProduceBytes())/float64(p.cfg.MaxBufferedBytes))
}

// Close waits until what was taken is acknowledged or has failed, at most until ctx is
// done, and closes the connections. Accept must not be called after it.
func (p *Producer) Close(ctx context.Context) error {
	err := p.client.Flush(ctx)
	p.client.Close() // fails what is left, so every done is called
	if err != nil {
		return fmt.Errorf("flush kafka producer: %w", err)
	}
	return nil
}

// Package queue is the log between accepting a message and storing it: Kafka by
// franz-go.
//
// The producer accepts: a record counts as accepted when all in-sync replicas have it
// (idempotent, acks=all). The consumer group stores: it hands batches to a [Handler],
// in order within a conversation (the record's key), and commits offsets only after the
// handler has returned, so each record reaches the handler at least once, whatever dies.
// A record that can never be stored goes to the dead-letter topic with its reason
// before its offset is committed.
//
// The package does not know what storing means (core/deliver does), and does not
// number or dedupe (core/chat, core/store). Traces pass through record headers: spans of
// the consumer continue the sender's trace, baggage included. Its caller is core.Run.
//
// Publishing to Redis and writing SQL directly in the request lost: then an accepted
// message is as durable as the slowest of both, and a store that is down for a minute
// refuses a minute of messages; with the log in between they wait.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/mesh/tlsdial"
)

// Config is shared by producer and consumer.
type Config struct {
	Brokers     []string // host:port
	TLS         tlsdial.Config
	SASL        SASL
	Topic       string
	DeadTopic   string        // records that can never be stored
	Partitions  int           // of a topic that is created; an existing one keeps its own
	Replication int           // of a topic that is created; -1 is the broker's default
	Retention   time.Duration // of a topic that is created; must outlast any outage of the store

	Linger      time.Duration // how long the producer waits for company
	MaxBuffered int           // records waiting for an acknowledgement; beyond it senders are refused
	// MaxBufferedBytes bounds the same by size: ten thousand long texts are a third of a
	// gigabyte.
	MaxBufferedBytes int
	// MaxUnstored bounds records that are accepted and not stored yet, by all processes
	// together; beyond it senders are refused. 0: none.
	MaxUnstored int64
	Timeout     time.Duration // after it a record that is not acknowledged fails; its outcome is unknown

	Group   string
	Session time.Duration // a consumer that is silent for so long loses its partitions
	// Instance makes the consumer a static member: a process that is killed and comes
	// back under the same name takes its partitions up again at once instead of after
	// Session. It must be unique; empty switches it off.
	Instance string
	Batch    int           // records a handler gets at most at a time
	Backoff  time.Duration // first pause after a failed batch; doubles up to 20 times it
	GiveUp   time.Duration // a consumer that cannot store for so long leaves its partitions to others
}

// DefaultConfig fits the embedded Kafka and a real one.
func DefaultConfig() Config {
	return Config{
		Brokers: []string{"127.0.0.1:9092"}, Topic: "tracegate.messages", DeadTopic: "tracegate.messages.dead",
		Partitions: 12, Replication: -1, Retention: 7 * 24 * time.Hour,
		Linger: 5 * time.Millisecond, MaxBuffered: 10_000, MaxBufferedBytes: 64 << 20, MaxUnstored: 1_000_000, Timeout: 10 * time.Second,
		Group: "tracegate.store", Session: 6 * time.Second, Batch: 500,
		Backoff: 50 * time.Millisecond, GiveUp: 30 * time.Second,
	}
}

// topicRunes are what Kafka takes in the name of a topic.
const topicRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case len(c.Brokers) == 0:
		return errors.New("brokers: name at least one")
	case c.Topic == "" || len(c.Topic) > 244 || strings.Trim(c.Topic, topicRunes) != "": // Kafka's 249, less those of a dead topic's end
		return errors.New("topic: must be 1 to 244 of a-z A-Z 0-9 . _ -")
	case c.DeadTopic == "" || c.DeadTopic == c.Topic:
		return errors.New("dead_topic: must be another one than topic")
	case c.Partitions < 1 || c.Partitions > math.MaxInt32:
		return errors.New("partitions: must be 1 to 2147483647")
	case c.Replication < -1 || c.Replication == 0 || c.Replication > math.MaxInt16:
		return errors.New("replication: must be -1 or 1 to 32767")
	case c.Retention < time.Hour:
		return errors.New("retention: must be at least 1h")
	case c.Linger < 0 || c.Linger > time.Second:
		return errors.New("linger: must be 0 to 1s")
	case c.MaxBuffered < 1:
		return errors.New("max_buffered: must be at least 1")
	case c.MaxBufferedBytes < 64<<10:
		return errors.New("max_buffered_bytes: must be at least 64 KiB")
	case c.MaxUnstored < 0:
		return errors.New("max_unstored: must not be negative")
	case c.Timeout < time.Second:
		return errors.New("timeout: must be at least 1s")
	case c.Group == "":
		return errors.New("group: must not be empty")
	case c.Session < time.Second || c.Session > 30*time.Minute:
		return errors.New("session: must be 1s to 30m")
	case c.Batch < 1:
		return errors.New("batch: must be at least 1")
	case c.Backoff <= 0:
		return errors.New("backoff: must be positive")
	case c.GiveUp <= 0:
		return errors.New("give_up: must be positive")
	}
	return c.validateConnection()
}

// Tracing is what carries traces through the log.
type Tracing struct {
	Provider   trace.TracerProvider
	Propagator propagation.TextMapPropagator
	// Database is what the handler stores in, as OpenTelemetry names it (db.system.name);
	// empty: traces end where a record is processed.
	Database string
}

func (t Tracing) kotel(group string) *kotel.Tracer {
	opts := []kotel.TracerOpt{kotel.TracerProvider(t.Provider), kotel.TracerPropagator(t.Propagator)}
	if group != "" {
		opts = append(opts, kotel.ConsumerGroup(group))
	}
	return kotel.NewTracer(opts...)
}

// EnsureTopics creates the topics that are missing. It waits for the brokers until ctx
// is done.
func EnsureTopics(ctx context.Context, cfg Config, log *slog.Logger) error {
	client, err := cfg.connect(kgo.WithLogger(franzLogger{log}), kgo.RequestRetries(0))
	if err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	defer client.Close()
	pause := cfg.Backoff
	for logged := false; ; {
		err := createTopics(ctx, kadm.NewClient(client), cfg)
		if err == nil {
			return nil
		}
		if !logged {
			logged = true
			log.Warn("kafka is not ready, trying on", "brokers", cfg.Brokers, "error", err)
		}
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("ensure topics: %w", err)
		}
		pause = min(2*pause, 20*cfg.Backoff)
	}
}

func createTopics(ctx context.Context, admin *kadm.Client, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	configs := map[string]*string{"retention.ms": kadm.StringPtr(fmt.Sprint(cfg.Retention.Milliseconds()))}
	if cfg.Replication >= 3 {
		configs["min.insync.replicas"] = kadm.StringPtr("2") // else acks=all may mean one
	}
	for topic, partitions := range map[string]int{cfg.Topic: cfg.Partitions, cfg.DeadTopic: 1} {
		r, err := admin.CreateTopic(ctx, int32(partitions), int16(cfg.Replication), configs, topic)
		if err == nil {
			err = r.Err
		}
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	return nil
}

// sleep returns early with ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// franzLogger passes the client's warnings on; its retries are the normal way of life
// of a Kafka client and stay at debug level.
type franzLogger struct{ log *slog.Logger }

func (l franzLogger) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l franzLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelDebug
	if level == kgo.LogLevelError {
		to = slog.LevelWarn
	}
	l.log.Log(context.Background(), to, "kafka client", append([]any{"event", msg}, keyvals...)...)
}

package ingest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/tracegate/tracegate/observability/ingest/otlp"
)

// MaxWriters bounds Config.Writers: each can keep ClickHouse busy.
const MaxWriters = 16

// GCPercent is the garbage collector's target (GOGC) for a process that runs an Ingest: rows
// live for a fraction of a second, and to look at those that wait again and again was a good
// part of what a span cost. What waits is bounded, so the heap is too.
const GCPercent = 300

// Config bounds what is received and how it is stored.
type Config struct {
	// Addr is the address of the OTLP receiver for gRPC, loopback where there is no TLS, HTTPAddr that for HTTP;
	// empty: none for HTTP.
	Addr, HTTPAddr string
	// TLS makes senders by gRPC prove who they are, HTTPTLS those by HTTP; nil: nothing is encrypted.
	TLS, HTTPTLS *tls.Config
	// MaxMessage bounds one message, in bytes.
	MaxMessage int
	// MaxPending bounds records that wait to be stored; MaxPendingBytes their messages'
	// size, and that of points in memory. What comes beyond is refused, to be sent again.
	MaxPending      int
	MaxPendingBytes int64
	// FlushRows and FlushBytes end a batch early.
	FlushRows  int
	FlushBytes int64
	// FlushEvery is the least time between two batches, and so the longest a record
	// waits for its batch to end while ClickHouse keeps up.
	FlushEvery time.Duration
	// FlushAfter is how long the first record of a batch waits for others when the last
	// batch is longer ago than FlushEvery.
	FlushAfter time.Duration
	// Writers is how many batches of a table are stored at once.
	Writers int
	// StoreTimeout bounds one try to store a batch before it goes to the spool, and
	// DrainTimeout one to store a batch of the spool: longer, because nobody waits for
	// it and a batch that ever exceeds it would stay.
	StoreTimeout, DrainTimeout time.Duration
	// SpoolDir and SpoolBytes say where batches wait while ClickHouse is away, and how
	// much of them.
	SpoolDir   string
	SpoolBytes int64
	// MinBackoff and MaxBackoff bound the pause between tries to drain the spool.
	MinBackoff, MaxBackoff time.Duration
	// MarkEvery is how often a watermark is written.
	MarkEvery time.Duration
	// Drain bounds how long Run takes to end.
	Drain time.Duration
	// Env and Tenant are those of spans, and of points with a color, that say neither.
	Env, Tenant string
	Limits      otlp.Limits
}

// DefaultConfig is Config without SpoolDir.
func DefaultConfig() Config {
	return Config{
		Addr:            "127.0.0.1:4317",
		HTTPAddr:        "127.0.0.1:4318",
		MaxMessage:      16 << 20,
		MaxPending:      200_000,
		MaxPendingBytes: 128 << 20,
		FlushRows:       20_000,
		FlushBytes:      16 << 20,
		FlushEvery:      200 * time.Millisecond,
		FlushAfter:      20 * time.Millisecond,
		Writers:         1,
		StoreTimeout:    5 * time.Second,
		DrainTimeout:    time.Minute,
		SpoolBytes:      1 << 30,
		MinBackoff:      100 * time.Millisecond,
		MaxBackoff:      2 * time.Second,
		MarkEvery:       time.Second,
		Drain:           5 * time.Second,
		Env:             "default",
		Tenant:          "default",
		Limits:          otlp.DefaultLimits(),
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		return fmt.Errorf("addr: %w", err)
	}
	if _, _, err := net.SplitHostPort(c.HTTPAddr); c.HTTPAddr != "" && err != nil {
		return fmt.Errorf("http_addr: %w", err)
	}
	for _, f := range []struct {
		key string
		bad bool
	}{
		{"max_message", c.MaxMessage <= 0},
		{"max_pending", c.MaxPending <= 0},
		{"max_pending_bytes", c.MaxPendingBytes <= 0},
		{"flush_rows", c.FlushRows <= 0},
		{"flush_bytes", c.FlushBytes <= 0},
		{"flush_every", c.FlushEvery <= 0},
		{"flush_after", c.FlushAfter <= 0},
		{"writers", c.Writers <= 0},
		{"store_timeout", c.StoreTimeout <= 0},
		{"drain_timeout", c.DrainTimeout <= 0},
		{"spool_bytes", c.SpoolBytes <= 0},
		{"min_backoff", c.MinBackoff <= 0},
		{"max_backoff", c.MaxBackoff < c.MinBackoff},
		{"mark_every", c.MarkEvery <= 0},
		{"drain", c.Drain <= 0},
		{"limits", c.Limits.Attributes <= 0 || c.Limits.Key <= 0 || c.Limits.Value <= 0 || c.Limits.Name <= 0 || c.Limits.Past <= 0 || c.Limits.Future <= 0 ||
			c.Limits.Buckets <= 0 || c.Limits.Points <= 0 || c.Limits.PointBytes <= 0 || c.Limits.Body <= 0 || c.Limits.Logs <= 0 || c.Limits.LogBytes <= 0},
	} {
		if f.bad {
			return fmt.Errorf("%s: must be positive", f.key)
		}
	}
	if c.Writers > MaxWriters {
		return fmt.Errorf("writers: must be at most %d", MaxWriters)
	}
	if c.SpoolDir == "" {
		return errors.New("spool_dir: must not be empty")
	}
	if c.Env == "" || c.Tenant == "" {
		return errors.New("env and tenant: must not be empty")
	}
	return nil
}

package search

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core/queue"
	"github.com/tracegate/tracegate/core/store"
	"github.com/tracegate/tracegate/mesh/secret"
)

// Config is one search process.
type Config struct {
	Listen string // host:port of searches, health and metrics; loopback, it is not encrypted
	Dir    string // of the index; this process's own
	Token  secret.Text
	Anew   bool // make the index anew, from the database
	// MaxMessages bounds the index: past it the oldest messages are not found any more.
	MaxMessages uint64
	Every       time.Duration // between looks at the index's size

	Store store.Config
	Queue queue.Config
}

// DefaultConfig keeps some 100 million messages, of which an index has about 40 GB.
func DefaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:9301", Dir: "search", MaxMessages: 100_000_000, Every: time.Minute,
		Store: store.DefaultConfig(), Queue: queue.DefaultConfig(),
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return errors.New("listen: must be a loopback address, it is not encrypted")
	}
	switch {
	case c.Dir == "":
		return errors.New("dir: must not be empty")
	case len(c.Token) < 16:
		return errors.New("token: must have at least 16 characters")
	case c.MaxMessages < 1:
		return errors.New("max_messages: must be at least 1")
	case c.Every <= 0:
		return errors.New("every: must be positive")
	}
	if err := c.Store.Validate(); err != nil {
		return fmt.Errorf("store.%w", err)
	}
	if err := c.Queue.Validate(); err != nil {
		return fmt.Errorf("queue.%w", err)
	}
	return nil
}

// Run answers searches until ctx is done. It needs the database to begin; Kafka and the
// database may come and go afterwards. ready, where not nil, is called with the address.
func Run(ctx context.Context, cfg Config, reg *prometheus.Registry, ready func(addr string), log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("search config: %w", err)
	}
	listen, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listen.Close() // closed by its server before
	messages, err := store.Open(ctx, cfg.Store)
	if err != nil {
		return err
	}
	defer messages.Close()
	index, err := OpenIndex(filepath.Clean(cfg.Dir), messages.Epoch(), cfg.Anew, log)
	if err != nil {
		return err
	}
	m, err := newMetrics(reg, index)
	if err != nil {
		return errors.Join(err, index.Close())
	}
	follower, err := queue.NewFollower(cfg.Queue, cfg.Queue.Group+".search."+index.Name(), "search", reg, log)
	if err != nil {
		return errors.Join(err, index.Close())
	}
	f := &feed{cfg: cfg, index: index, store: messages, metrics: m, log: log}
	server := &http.Server{
		Handler: newHandler(cfg.Token, NewSearcher(index, messages), m, reg, log), ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(listen); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return server.Shutdown(end)
	})
	g.Go(func() error { return f.scan(ctx) })
	g.Go(func() error { return f.trim(ctx) })
	g.Go(func() error { return follower.Run(ctx, f.take) })
	log.Info("search serves", "listen", listen.Addr(), "index", index.Name())
	if ready != nil {
		ready(listen.Addr().String())
	}
	return errors.Join(g.Wait(), index.Close())
}

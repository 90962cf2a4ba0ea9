package main

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	fanoutembedded "github.com/tracegate/tracegate/core/fanout/embedded"
	queueembedded "github.com/tracegate/tracegate/core/queue/embedded"
)

// startEmbedded runs Kafka's and Redis' stand-ins inside the supervisor, so that the
// parts find them where a production configuration names servers. The returned
// function stops them; call it when no part runs any more.
func (u *up) startEmbedded(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan string)
	waiting := 0
	if u.cfg.Kafka.Embedded {
		waiting++
		cfg := queueembedded.Config{Listen: u.cfg.Kafka.Brokers[0], Dir: filepath.Join(u.cfg.Data, "kafka")}
		g.Go(func() error {
			return queueembedded.Run(ctx, cfg, func(addr string) { ready <- addr }, u.log.With("embedded", "kafka"))
		})
	}
	if u.cfg.Redis.Embedded {
		waiting++
		password, err := u.cfg.redisPassword()
		if err != nil {
			cancel()
			return nil, err
		}
		cfg := fanoutembedded.Config{Listen: u.cfg.Redis.Addrs[0], Password: password}
		g.Go(func() error { return fanoutembedded.Run(ctx, cfg, func(addr string) { ready <- addr }) })
	}
	stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			u.log.Error("embedded engine ended", "error", err)
		}
	}
	for range waiting {
		select {
		case <-ready:
		case <-ctx.Done():
			cancel()
			return nil, fmt.Errorf("start embedded engines: %w", g.Wait())
		}
	}
	return stop, nil
}

// promises are what the embedded parts in use cannot promise, a line each.
func (c Config) promises() []string {
	var lines []string
	if c.Kafka.Embedded {
		lines = append(lines, queueembedded.Promise)
	}
	if c.Redis.Embedded {
		lines = append(lines, fanoutembedded.Promise)
	}
	if c.Database.URL == "" {
		lines = append(lines, "embedded database (SQLite): every committed row is synced to disk, but it serves the processes of this machine only")
	}
	if c.ClickHouse.Embedded {
		lines = append(lines, "embedded ClickHouse (chDB): the real engine in one process; no replicas, HTTP interface only, "+
			"inserts outlive a kill -9 but are not synced one by one, so a power failure may lose the last seconds of telemetry")
	}
	return lines
}

//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core"
	"github.com/tracegate/tracegate/core/api"
	fanoutembedded "github.com/tracegate/tracegate/core/fanout/embedded"
	queueembedded "github.com/tracegate/tracegate/core/queue/embedded"
	"github.com/tracegate/tracegate/mesh/benchdoc"
)

// send measures a whole core process with its embedded parts: how many messages it
// accepts, and how many it stores and delivers, from clients that wait for their answers.
func send(ctx context.Context, c config) error {
	engines, err := start(ctx, "engines")
	if err != nil {
		return err
	}
	defer engines.stop()
	p, err := start(ctx, "core", strings.Fields(engines.addr)...)
	if err != nil {
		return err
	}
	defer p.stop()
	l, err := start(ctx, "load")
	if err != nil {
		return err
	}
	defer l.stop()
	if err := l.ask("meet", meetArgs{Base: "http://" + p.addr, Pairs: c.pairs}, nil); err != nil {
		return err
	}
	var full, paced []sent
	for round := range c.rounds + 1 {
		var most, half sent
		if err := l.ask("chat", chatArgs{For: c.slice, InFlight: c.inFlight}, &most); err != nil {
			return err
		}
		if err := l.ask("chat", chatArgs{For: c.slice, InFlight: 1000, PerSecond: most.StoredRate / 2}, &half); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "round %d of %d: %.0f accepted/s, %.0f stored/s\n", round, c.rounds, most.AcceptedRate, most.StoredRate)
		if round > 0 { // the first one warms up
			full, paced = append(full, most), append(paced, half)
		}
	}
	section, figures := sendReport(c, full, paced)
	fmt.Print(section, "\n\n", figures)
	if c.write != "" {
		return benchdoc.Write(c.write, "bench:send", section)
	}
	return nil
}

func sendReport(c config, full, paced []sent) (section, figures string) {
	median := func(samples []sent, of func(sent) float64) float64 {
		var v []float64
		for _, s := range samples {
			v = append(v, of(s))
		}
		return benchdoc.Median(v)
	}
	ms := func(of func(sent) time.Duration) float64 {
		return median(paced, func(s sent) float64 { return of(s).Seconds() * 1000 })
	}
	accepted, stored := median(full, func(s sent) float64 { return s.AcceptedRate }), median(full, func(s sent) float64 { return s.StoredRate })
	a50, a99 := ms(func(s sent) time.Duration { return s.Accepted.P50 }), ms(func(s sent) time.Duration { return s.Accepted.P99 })
	s50, s99 := ms(func(s sent) time.Duration { return s.Stored.P50 }), ms(func(s sent) time.Duration { return s.Stored.P99 })
	section = fmt.Sprintf(`## How many messages a process takes

| a message is | messages/s | P50 at half the rate | P99 |
|---|---:|---:|---:|
| accepted: durable in Kafka, its sender is told | %.0f | %.1f ms | %.1f ms |
| stored: numbered in SQL and delivered to its recipient | %.0f | %.1f ms | %.1f ms |

One core process with its embedded parts (kfake and miniredis in one other process, SQLite in its own; each record and each transaction is synced to disk), %d pairs of
clients over WebSockets, each sender with %d messages at a time that are not yet accepted; every message is checked to be accepted, and to come once and in order. Times are from sending, measured at half
the rate at which messages were stored. Medians of %d rounds of %v; load generator, core and engines share the machine. There is no peer: no other server in the list stores before it delivers. %s, %s.

Repeat: `+"`go tool task bench:send`", accepted, a50, a99, stored, s50, s99, c.pairs, c.inFlight, c.rounds, c.slice, benchdoc.Machine(), time.Now().UTC().Format(time.DateOnly))
	for _, f := range []struct {
		name, unit string
		value      float64
	}{
		{"accepted_per_second", "/s", accepted}, {"accepted_p50", "ms", a50}, {"accepted_p99", "ms", a99},
		{"stored_per_second", "/s", stored}, {"stored_p50", "ms", s50}, {"stored_p99", "ms", s99},
	} {
		figures += benchdoc.Figure(f.name, f.unit, f.value, "-", 0) + "\n"
	}
	return section, figures
}

// runEngines runs the embedded Kafka, with files, and the embedded Redis.
func runEngines(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	kafka, redis := make(chan string, 1), make(chan string, 1)
	g.Go(func() error {
		return queueembedded.Run(ctx, queueembedded.Config{Listen: "127.0.0.1:0", Dir: dir}, func(addr string) { kafka <- addr }, errorLog())
	})
	g.Go(func() error {
		return fanoutembedded.Run(ctx, fanoutembedded.Config{Listen: "127.0.0.1:0", Password: redisPassword}, func(addr string) { redis <- addr })
	})
	g.Go(func() error {
		defer stop()
		var addrs []string
		for _, c := range []chan string{kafka, redis} {
			select {
			case a := <-c:
				addrs = append(addrs, a)
			case <-ctx.Done():
				return nil // its part says why
			}
		}
		return obey(strings.Join(addrs, " "), nil)
	})
	return g.Wait()
}

// runCore runs all of core, with SQLite.
func runCore(ctx context.Context, kafka, redis string) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cfg := core.DefaultConfig()
	cfg.Listen, cfg.Admin, cfg.Token = "127.0.0.1:0", "127.0.0.1:0", rand.Text()
	cfg.Store.URL = "sqlite:" + filepath.Join(dir, "core.db")
	cfg.Queue.Brokers, cfg.Fanout.Addrs, cfg.Fanout.Password = []string{kafka}, []string{redis}, redisPassword
	// What one client may do is not what is measured, nor are passwords.
	cfg.API.User, cfg.API.Register = api.Rate{PerSecond: 1e9, Burst: 1e9}, api.Rate{PerSecond: 1e9, Burst: 1e9}
	cfg.Session.CommandRate, cfg.Session.CommandBurst, cfg.Account.BcryptCost = 1e9, 1e9, 4
	cfg.LameDuck, cfg.DrainSpread, cfg.DrainGrace = 0, 0, 0
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan string, 1)
	g.Go(func() error {
		return core.Run(ctx, cfg, core.Deps{
			Key: key(), Registry: prometheus.NewRegistry(), Tracing: sdktrace.NewTracerProvider(),
			Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
			Ready:      func(listen, _ string) { ready <- listen },
		}, errorLog())
	})
	g.Go(func() error {
		defer stop()
		select {
		case addr := <-ready:
			return obey(addr, orders{"usage": order(measureUsage)})
		case <-ctx.Done():
			return errors.New("core did not start")
		}
	})
	return g.Wait()
}

func errorLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core"
	"github.com/tracegate/tracegate/core/api"
	fanoutembedded "github.com/tracegate/tracegate/core/fanout/embedded"
	queueembedded "github.com/tracegate/tracegate/core/queue/embedded"
)

// serve runs one process of core with its embedded engines, and prints its address and
// the token of a user.
func serve(ctx context.Context) error {
	ctx = untilInputEnds(ctx)
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	kafka, redis, ready := make(chan string, 1), make(chan string, 1), make(chan string, 1)
	password := rand.Text()
	work.Go(func() error {
		return queueembedded.Run(ctx, queueembedded.Config{Listen: "127.0.0.1:0"}, func(addr string) { kafka <- addr }, log)
	})
	work.Go(func() error {
		return fanoutembedded.Run(ctx, fanoutembedded.Config{Listen: "127.0.0.1:0", Password: password}, func(addr string) { redis <- addr })
	})
	cfg := core.DefaultConfig()
	cfg.Listen, cfg.Admin, cfg.Token = "127.0.0.1:0", "127.0.0.1:0", rand.Text()
	cfg.Store.URL = "sqlite:" + filepath.Join(dir, "core.db")
	cfg.API.User = api.Rate{PerSecond: 1e9, Burst: 1e9}
	broker, err := first(ctx, kafka)
	if err != nil {
		return err
	}
	server, err := first(ctx, redis)
	if err != nil {
		return err
	}
	cfg.Queue.Brokers, cfg.Fanout.Addrs, cfg.Fanout.Password = []string{broker}, []string{server}, password
	work.Go(func() error {
		return core.Run(ctx, cfg, core.Deps{
			Key: key, Registry: prometheus.NewRegistry(), Tracing: sdktrace.NewTracerProvider(),
			Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
			Ready:      func(listen, _ string) { ready <- listen },
		}, log)
	})
	work.Go(func() error {
		addr, err := first(ctx, ready)
		if err != nil {
			return nil // core says why
		}
		token, err := user(ctx, "http://"+addr)
		if err != nil {
			return err
		}
		_, err = fmt.Println(addr, token)
		return err
	})
	return work.Wait()
}

// first waits for an address.
func first(ctx context.Context, c <-chan string) (string, error) {
	select {
	case s := <-c:
		return s, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// user registers and logs in.
func user(ctx context.Context, base string) (token string, err error) {
	body := `{"name":"bench","password":"` + rand.Text() + `"}`
	var answer struct{ Token string }
	for _, path := range []string{"/v1/users", "/v1/sessions"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, bytes.NewBufferString(body))
		if err != nil {
			return "", err
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			return "", err
		}
		raw, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		if res.StatusCode >= 300 {
			return "", fmt.Errorf("%s: %s: %s", path, res.Status, raw)
		}
		if err := json.Unmarshal(raw, &answer); err != nil {
			return "", err
		}
	}
	return answer.Token, nil
}

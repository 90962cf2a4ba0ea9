// Command fetch brings the engines that tests run against onto this machine, with
// progress, so that no test waits for a download. What is not to be had is named with
// its reason, and is an error where CI is true: there no test may be skipped.
// Arguments name the only ones to bring.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/tracegate/tracegate/edge/artifact"
	"github.com/tracegate/tracegate/edge/artifact/engine"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if missing := fetch(ctx, os.Args[1:], slog.New(slog.NewTextHandler(os.Stderr, nil))); missing > 0 && os.Getenv("CI") == "true" {
		os.Exit(1)
	}
}

func fetch(ctx context.Context, only []string, log *slog.Logger) (missing int) {
	binary := func(e engine.Engine, err error) (string, error) { return e.Bin, err }
	for _, e := range []struct {
		name string
		get  func() (string, error)
	}{
		{"Envoy", func() (string, error) { return artifact.Ensure(ctx, "", artifact.Envoy(), log) }},
		{"ClickHouse (chDB)", func() (string, error) { return artifact.Ensure(ctx, "", artifact.ChDB(), log) }},
		{"Redis", func() (string, error) { return binary(engine.Redis(ctx, log)) }},
		{"Valkey", func() (string, error) { return binary(engine.Valkey(ctx, log)) }},
		{"PostgreSQL", func() (string, error) { return binary(engine.PostgreSQL(ctx, log)) }},
		{"Kafka", func() (string, error) { _, err := engine.Kafka(ctx, log); return "by its class path", err }},
		{"Prometheus", func() (string, error) { return binary(engine.Prometheus(ctx, log)) }},
		{"versitygw (S3)", func() (string, error) { return engine.VersityGW(ctx, log) }},
		{"Kubernetes", func() (string, error) { return binary(engine.Kubernetes(ctx, log)) }},
		{"clang", func() (string, error) { return engine.Clang(ctx, log) }},
		{"Chromium", func() (string, error) { return engine.Chromium(ctx, log) }},
		{"axe-core", func() (string, error) { return engine.AxeCore(ctx, log) }},
	} {
		if len(only) > 0 && !slices.Contains(only, e.name) {
			continue
		}
		start := time.Now()
		path, err := e.get()
		if err != nil {
			missing++
			fmt.Printf("%-18s not to be had, its tests are skipped: %v\n", e.name, err)
			continue
		}
		fmt.Printf("%-18s ready in %s (%s)\n", e.name, time.Since(start).Round(time.Millisecond), path)
	}
	return missing
}

// Command bench measures what the edge filter costs: requests a second through a
// real Envoy with one worker, plain, with a Wasm filter that does nothing, with one
// that only makes our filter's calls to Envoy, with Lua doing the work of our filter,
// and with our filter.
//
// All are listeners of one Envoy and are measured in turn, in many short slices, so
// that whatever else happens on the machine happens to all of them; each slice is
// compared with plain in the same round. Beside the throughput, which depends on the
// load generator's share of the machine, it reports the CPU time of Envoy's worker
// for each request, which hardly does.
//
// Load generator and upstream are part of this process, on raw connections with
// canned bytes, to be cheap beside Envoy. It is a tool: `go tool task bench:filter`.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

type config struct {
	envoy       string
	connections int
	rounds      int
	slice       time.Duration
	warmUp      time.Duration
	memory      int64
	write       string
}

func main() {
	var c config
	flag.StringVar(&c.envoy, "envoy", os.Getenv("TRACEGATE_ENVOY"), "Envoy binary; empty for the one that `tracegate up` uses")
	flag.IntVar(&c.connections, "connections", 32, "keep-alive connections for each variant")
	flag.IntVar(&c.rounds, "rounds", 60, "rounds; each measures every variant once")
	flag.DurationVar(&c.slice, "slice", 250*time.Millisecond, "duration of one measurement")
	flag.DurationVar(&c.warmUp, "warm-up", 3*time.Second, "load on each variant before the first round")
	flag.Int64Var(&c.memory, "memory", 1_000_000, "requests through our filter between two readings of Envoy's memory")
	flag.StringVar(&c.write, "write", "", "markdown file whose section bench:filter is replaced, or appended")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, c, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, c config, log *slog.Logger) error {
	up, err := listen()
	if err != nil {
		return err
	}
	defer up.close()
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	variants, err := makeVariants(ctx, dir, log)
	if err != nil {
		return err
	}
	e, err := startEdge(ctx, c.envoy, dir, up.addr(), variants, log)
	if err != nil {
		return err
	}
	defer e.kill()
	if err := verify(e, up, variants); err != nil {
		return err
	}
	results, err := measure(ctx, c, e, variants, log)
	if err != nil {
		return err
	}
	log.Info("measuring memory", "requests", c.memory)
	m, err := grow(ctx, c, e, len(variants)-1) // the last is ours
	if err != nil {
		return fmt.Errorf("measure memory: %w", err)
	}
	r := summarize(results)
	fmt.Print(r.table(), "\n", m, "\n", describeMachine(e), "\n\n", r.figures(), m.figure())
	if c.write != "" {
		return benchdoc.Write(c.write, "bench:filter", r.section(c, e, m))
	}
	return nil
}

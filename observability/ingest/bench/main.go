// Command bench measures what it costs to receive spans over OTLP and store them: ours
// (observability/ingest with observability/store) against the OpenTelemetry collector with
// its ClickHouse exporter, each a process of its own, into the same engine, in turn. It is a
// tool: `go tool task bench:ingest`.
//
// The collector is built from its Go modules by its own builder, once, into the cache. Both
// get the same messages over gRPC from the same senders. Ours answers when ClickHouse has
// the rows; the collector answers when its queue has them. So what counts is CPU time until
// all rows are in the table, not the time of an answer.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
	"github.com/tracegate/tracegate/observability/engine/enginebench"
	"github.com/tracegate/tracegate/observability/ingest"
)

type config struct {
	spans   int // a round
	rounds  int
	senders int
	size    int // spans a message
	outage  time.Duration
	profile string
	dir     string
	write   string

	compare    string // numbers of writers
	writers    int    // of ours
	delay      time.Duration
	engineAddr string // where ours finds the engine, where that is not its own address
}

func main() {
	var c config
	var engine, receiver string
	flag.StringVar(&engine, "engine", "", "used by the program itself: be the engine at an `address`")
	flag.StringVar(&receiver, "ingest", "", "used by the program itself: receive at an `address`, for the engine at -into")
	into := flag.String("into", "", "used by the program itself: `address` of the engine")
	flag.IntVar(&c.spans, "spans", 500_000, "spans a round")
	flag.IntVar(&c.rounds, "rounds", 3, "rounds of each side, in turn")
	flag.IntVar(&c.senders, "senders", 16, "senders, each with one message under way")
	flag.IntVar(&c.size, "size", 1000, "spans a message")
	flag.DurationVar(&c.outage, "outage", 3*time.Second, "how long the engine is away in the middle of the round that counts losses")
	flag.StringVar(&c.profile, "profile", "", "`file` for a CPU profile of our receiver")
	flag.StringVar(&c.dir, "dir", "", "`folder` for data (default: a temporary one)")
	flag.StringVar(&c.compare, "compare-writers", "", "compare ours with these `numbers` of writers, as 1,2,4, instead of with the collector")
	flag.DurationVar(&c.delay, "delay", 0, "with -compare-writers: how much later the engine answers, as one that is farther away")
	flag.IntVar(&c.writers, "writers", ingest.DefaultConfig().Writers, "writers of ours")
	flag.StringVar(&c.write, "write", "", "replace the section in a markdown `file`")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case engine != "":
		err = enginebench.Run(ctx, engine, c.dir)
	case receiver != "":
		err = runReceiver(ctx, receiver, *into, c)
	case c.compare != "":
		if err = c.check(); err == nil {
			err = compareWriters(ctx, c)
		}
	default:
		err = run(ctx, c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func (c config) check() error {
	if c.rounds < 1 || c.size < 1 || c.senders < 1 || c.spans < c.size {
		return errors.New("rounds, size and senders must be positive, and spans not less than size")
	}
	return nil
}

func run(ctx context.Context, c config) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	collector, err := ensureCollector(ctx)
	if err != nil {
		return err
	}
	if c.dir, err = os.MkdirTemp(c.dir, "ingest"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	e, err := enginebench.Start(ctx, filepath.Join(c.dir, "clickhouse"))
	if err != nil {
		return err
	}
	defer e.Stop()
	sides := []*side{ours(c), theirs(c, collector)}
	results := map[string][]result{}
	for i := range c.rounds {
		for _, s := range sides {
			r, err := measure(ctx, c, e, s, 0)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d, %s: %s\n", i+1, s.name, r)
			results[s.name] = append(results[s.name], r)
		}
	}
	killed := map[string]result{}
	for _, s := range sides {
		r, err := measure(ctx, c, e, s, c.outage)
		if err != nil {
			return fmt.Errorf("%s, engine killed: %w", s.name, err)
		}
		fmt.Fprintf(os.Stderr, "engine killed, %s: %s\n", s.name, r)
		killed[s.name] = r
	}
	fmt.Print(table(results, killed), "\n", figures(results, killed))
	if c.write == "" {
		return nil
	}
	return benchdoc.Write(c.write, "bench:ingest", section(c, results, killed))
}

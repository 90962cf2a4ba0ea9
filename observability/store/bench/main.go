// Command bench measures how long the statistics of all groups take, by the number of
// stored spans: the product's own store.GroupStats against the same answer from the raw
// spans, on the same engine, in turn. It is a tool: `go tool task bench:groupstats`.
//
// Spans are made inside ClickHouse and inserted into otel_traces in the order of their
// time, so they pass the product's materialized views as any other.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
	"github.com/tracegate/tracegate/observability/engine/enginebench"
)

type config struct {
	sizes  []int
	rounds int
	dir    string
	write  string
}

func main() {
	var c config
	var engine, sizes string
	flag.StringVar(&engine, "engine", "", "used by the program itself: be the engine at an `address`")
	flag.StringVar(&sizes, "sizes", "1000000,10000000", "stored `spans` to measure at; 100000000 takes 10 GB and a quarter of an hour more")
	flag.IntVar(&c.rounds, "rounds", 40, "rounds; each asks every question once, of both sides")
	flag.StringVar(&c.dir, "dir", "", "`folder` for the engine's data (default: a temporary one)")
	flag.StringVar(&c.write, "write", "", "replace the section in a markdown `file`")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if engine != "" {
		err = enginebench.Run(ctx, engine, c.dir)
	} else if c.sizes, err = parseSizes(sizes); err == nil {
		err = run(ctx, c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func parseSizes(text string) ([]int, error) {
	var out []int
	for s := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 100_000 || n > 1_000_000_000 {
			return nil, fmt.Errorf("sizes: %q is not a number between 100000 and 1000000000", s)
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return out, nil
}

func run(ctx context.Context, c config) (err error) {
	if c.rounds < 1 {
		return errors.New("rounds: must be positive")
	}
	dir, err := os.MkdirTemp(c.dir, "groupstats")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	e, err := enginebench.Start(ctx, dir)
	if err != nil {
		return err
	}
	defer e.Stop()
	var results []result
	for _, size := range c.sizes {
		began := time.Now()
		d, err := generate(ctx, e, size)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s spans in %s\n", short(size), time.Since(began).Round(time.Second))
		rs, err := measure(ctx, d, c.rounds)
		if err != nil {
			return err
		}
		results = append(results, rs...)
		if err := d.drop(ctx); err != nil {
			return err
		}
	}
	fmt.Print(table(results), "\n", figures(results))
	if c.write == "" {
		return nil
	}
	return benchdoc.Write(c.write, "bench:groupstats", section(c, results))
}

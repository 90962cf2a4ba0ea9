//go:build linux

// Command bench measures what the probes cost the service they watch: requests a
// second of a core process under load, and CPU time for each request, with all
// probes running (the whole of bpf.Run in a process of its own) and with none.
//
// Slices with and without follow each other, in changing order, and each pair is
// compared by itself, so that what else happens on the machine happens to both. Load
// generator, server and probes are copies of this binary. It is a tool: `go tool task
// bench:probe`, as root.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/tracegate/tracegate/bpf"
	"github.com/tracegate/tracegate/mesh/benchdoc"
)

type config struct {
	connections int
	rounds      int
	slice       time.Duration
	rate        int
	off         string
}

func main() {
	var c config
	role := flag.String("role", "", "used by the program itself: server or probe")
	pid := flag.Int("pid", 0, "used by the program itself: process to watch")
	flag.IntVar(&c.connections, "connections", 32, "keep-alive connections")
	flag.IntVar(&c.rounds, "rounds", 60, "rounds; each measures once with probes and once without")
	flag.DurationVar(&c.slice, "slice", time.Second, "duration of one measurement")
	flag.IntVar(&c.rate, "rate", 0, "requests a second to offer; 0: as many as go")
	flag.StringVar(&c.off, "off", "", "probes that are not to run, separated by commas")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch *role {
	case "server":
		err = serve(ctx)
	case "probe":
		err = runProbes(ctx, *pid, c.off)
	default:
		err = run(ctx, c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// sample is one slice.
type sample struct {
	rate float64       // requests a second
	cpu  time.Duration // of server, kernel work on its behalf, and probes, for each request
}

func run(ctx context.Context, c config) error {
	server, err := startChild(ctx, "server")
	if err != nil {
		return err
	}
	defer server.stop()
	if _, err := measure(ctx, c, server, nil); err != nil { // warm up
		return err
	}
	var pairs [][2]sample
	var last bpf.Snapshot
	for round := range c.rounds {
		var pair [2]sample // without, with
		order := []int{0, 1}
		if round%2 == 1 {
			order = []int{1, 0}
		}
		for _, on := range order {
			s, snapshot, err := slice(ctx, c, server, on == 1)
			if err != nil {
				return err
			}
			pair[on] = s
			if on == 1 {
				last = snapshot
			}
		}
		pairs = append(pairs, pair)
		fmt.Fprintf(os.Stderr, "round %2d: %.0f req/s with, %.0f without; CPU for a request %v with, %v without\n",
			round+1, pair[1].rate, pair[0].rate, pair[1].cpu, pair[0].cpu)
	}
	report(c, last, pairs)
	return nil
}

// report prints what the probes cost: of the last slice what each probe says, of all
// pairs the medians and the spread.
func report(c config, last bpf.Snapshot, pairs [][2]sample) {
	fmt.Printf("| probe | state | events/s | an event | of a core |\n|---|---|---:|---:|---:|\n")
	for _, p := range last.Probes {
		fmt.Printf("| %s | %s | %.0f | %v | %.3f%% |\n", p.Probe, p.State, p.Rate, p.EventCost, 100*p.Share)
	}
	values := func(f func([2]sample) float64) []float64 {
		var out []float64
		for _, p := range pairs {
			out = append(out, f(p))
		}
		return out
	}
	rate := func(i int) float64 { return benchdoc.Median(values(func(p [2]sample) float64 { return p[i].rate })) }
	cpu := func(i int) float64 {
		return benchdoc.Median(values(func(p [2]sample) float64 { return float64(p[i].cpu) / float64(time.Microsecond) }))
	}
	rateLow, rateMid, rateHigh := spread(values(func(p [2]sample) float64 { return p[1].rate / p[0].rate }))
	cpuLow, cpuMid, cpuHigh := spread(values(func(p [2]sample) float64 { return float64(p[1].cpu) / float64(p[0].cpu) }))
	fmt.Printf("\nratios are medians of %d pairs of %v; quartiles: throughput %.3f to %.3f, CPU %.3f to %.3f\n\n", len(pairs), c.slice, rateLow, rateHigh, cpuLow, cpuHigh)
	fmt.Printf("figure throughput_with_probes %.0f req/s vs without %.0f ratio %.3f\n", rate(1), rate(0), rateMid)
	fmt.Printf("figure cpu_with_probes %.2f us/req vs without %.2f ratio %.3f\n", cpu(1), cpu(0), cpuMid)
}

// slice measures once, with probes or without.
func slice(ctx context.Context, c config, server *child, probes bool) (sample, bpf.Snapshot, error) {
	if !probes {
		s, err := measure(ctx, c, server, nil)
		return s, bpf.Snapshot{}, err
	}
	p, err := startChild(ctx, "probe", "-pid", fmt.Sprint(server.cmd.Process.Pid), "-off", c.off)
	if err != nil {
		return sample{}, bpf.Snapshot{}, err
	}
	defer p.stop()
	s, err := measure(ctx, c, server, p)
	if err != nil {
		return s, bpf.Snapshot{}, err
	}
	snapshot, err := bpf.Fetch(ctx, client, p.addr)
	return s, snapshot, err
}

func spread(v []float64) (low, mid, high float64) {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/4], benchdoc.Median(v), s[(len(s)*3)/4]
}

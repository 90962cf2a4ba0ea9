// Command bench measures what a routing change costs: from the document with one changed
// rule, as `apply` brings it, to the acknowledgement of every edge, and to the first request that a real Envoy routes
// the new way; with the CPU time, the allocations and the bytes on the wire that it
// took the control plane.
//
// The peer in the same run is go-control-plane's snapshot cache (delta ADS, one
// snapshot for all edges), fed with full snapshots of the same plan, rendered by the
// same code, with all virtual hosts in one route configuration. What the product does with
// a document before it makes a plan of it, both do.
//
// Both are processes of their own (copies of this binary) with as many delta clients
// and one Envoy each, and are measured in turn. It is a tool: `go tool task bench:xds`.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

type config struct {
	envoy   string
	clients int
	rounds  int
	write   string
	small   size
	large   size
}

// size is how much there is of what does not change.
type size struct{ services, rules int } // rules of each service

func (s size) total() int { return s.services * s.rules }

func main() {
	c := config{small: size{20, 5}, large: size{500, 6}}
	role := flag.String("role", "", "used by the program itself: ours or peer")
	var p planeConfig
	flag.IntVar(&p.services, "services", 0, "used by the program itself")
	flag.IntVar(&p.rules, "rules", 0, "used by the program itself")
	flag.StringVar(&p.listen, "listen", "", "used by the program itself")
	flag.StringVar(&p.dir, "dir", "", "used by the program itself")
	flag.StringVar(&p.upstreams, "upstreams", "", "used by the program itself")
	flag.StringVar(&c.envoy, "envoy", os.Getenv("TRACEGATE_ENVOY"), "Envoy binary; empty for the one that `tracegate up` uses")
	flag.IntVar(&c.clients, "clients", 100, "delta clients of each control plane, beside its Envoy")
	flag.IntVar(&c.rounds, "rounds", 100, "changes of each size and control plane")
	flag.StringVar(&c.write, "write", "", "markdown file whose section bench:xds is replaced, or appended")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *role != "" {
		err = beControlPlane(ctx, *role, p)
	} else {
		err = run(ctx, c, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, c config, log *slog.Logger) error {
	var r report
	for _, s := range []size{c.small, c.large} {
		res, err := measure(ctx, c, s, log)
		if err != nil {
			return fmt.Errorf("%d rules: %w", s.total(), err)
		}
		r = append(r, res)
	}
	fmt.Print(r.table(), "\n", describeMachine(ctx, c), "\n\n", r.figures())
	if c.write != "" {
		return benchdoc.Write(c.write, "bench:xds", r.section(ctx, c))
	}
	return nil
}

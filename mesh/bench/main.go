// Command bench measures scaling on a real API server, controller manager and scheduler;
// only machines are played, by kwok (package kubetest):
//
//	scale     from the metric to ready pods to Envoy's endpoints, against a stock autoscaler
//	failover  a cluster is cut off: seconds and requests until another serves
//	ramp      errors and P95 while processes follow a ramp, by forecast and as by a stock autoscaler
//	operator  1,000 MicroServices: time to steady state, memory, calls when nothing changes
//
// It is a tool: `go tool task bench:scale`, `bench:failover`, `bench:ramp`, `bench:operator`.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

type config struct {
	runs     int
	services int
	envoy    string
	write    string

	kubeconfig string // of the operator's own process
	serve      string // address of a server's own process
	verbose    bool
}

// result is what a bench has to say: a section of a document, and figures.
type result interface {
	section() string
	figures() string
}

func main() {
	var c config
	flag.IntVar(&c.runs, "runs", 20, "scale: runs of ours, and of the stock autoscaler beside them; failover: times that a cluster is cut off")
	flag.IntVar(&c.services, "services", 1000, "operator: MicroServices")
	flag.StringVar(&c.envoy, "envoy", os.Getenv("TRACEGATE_ENVOY"), "scale, failover, ramp: Envoy binary; empty for the one that `tracegate up` uses")
	flag.StringVar(&c.write, "write", "", "markdown file whose section bench:NAME is replaced, or appended")
	flag.StringVar(&c.kubeconfig, "cluster", "", "used by the program itself")
	flag.StringVar(&c.serve, "serve", "", "used by the program itself")
	flag.BoolVar(&c.verbose, "v", false, "log what happens")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, c config, what string) error {
	switch {
	case c.kubeconfig != "":
		return beOperator(ctx, c.kubeconfig)
	case c.serve != "":
		return beServer(ctx, c.serve)
	}
	level := slog.LevelWarn
	if c.verbose {
		level = slog.LevelInfo
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler())) // of caches before there is an operator
	dir, err := os.MkdirTemp("", "meshbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var r result
	switch what {
	case "scale":
		r, err = runScale(ctx, c, dir, log)
	case "operator":
		r, err = operate(ctx, c, dir, log)
	case "failover":
		r, err = failover(ctx, c, dir, log)
	case "ramp":
		r, err = ramp(ctx, c, dir, log)
	default:
		err = fmt.Errorf("%q: there are scale, failover, ramp and operator", what)
	}
	if err != nil {
		return err
	}
	fmt.Print(r.section(), "\n", r.figures())
	if c.write == "" {
		return nil
	}
	return benchdoc.Write(c.write, "bench:"+what, r.section())
}

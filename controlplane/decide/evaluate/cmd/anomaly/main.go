// Command anomaly evaluates observability/anomaly: how often it calls minutes unusual that
// are not, and which faults it finds, by the rate of a group.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide/evaluate"
	"github.com/tracegate/tracegate/mesh/benchdoc"
	"github.com/tracegate/tracegate/observability/anomaly"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "anomaly:", err)
		os.Exit(1)
	}
}

func run() error {
	p := evaluate.AnomalyPlan{First: evaluate.Reporting, Rates: []float64{3, 10, 30, 100, 300}}
	s := anomaly.DefaultSettings()
	flag.IntVar(&p.Runs, "runs", 20, "`runs` of a week without a fault, of each kind of day and rate")
	flag.IntVar(&p.Faults, "faults", 40, "`runs` of each fault and rate")
	flag.IntVar(&p.Workers, "workers", runtime.NumCPU(), "`workers`; the result does not depend on them")
	tune := flag.Bool("tune", false, "play the seeds for tuning, and write nothing")
	flag.Float64Var(&s.Deviations, "deviations", s.Deviations, "the detector's setting")
	write := flag.String("write", "", "replace the section in a markdown `file`")
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("argument %q is not known", flag.Arg(0))
	case p.Runs < 1 || p.Runs > 1<<16 || p.Faults < 1 || p.Faults > 1<<16:
		return errors.New("runs and faults: must be between 1 and 65536")
	case p.Workers < 1:
		return errors.New("workers: must be positive")
	}
	if err := s.Validate(); err != nil {
		return err
	}
	if *tune {
		p.First, *write = evaluate.Tuning, ""
	}
	began := time.Now()
	r := evaluate.Anomalies(p, s)
	fmt.Print(r.Markdown(), "\n", r.Figures())
	fmt.Fprintf(os.Stderr, "took %s\n", time.Since(began).Round(time.Second))
	if *write == "" {
		return nil
	}
	return benchdoc.Write(*write, "bench:anomaly", section(&r))
}

func section(r *evaluate.AnomalyReport) string {
	return fmt.Sprintf(`## How surely minutes out of the ordinary are found

%s
One group whose rate swings by four fifths over the day, a week that is learned and a week without a fault, or a day with half an hour of one at any hour. Latency is lognormal with a P95
near 180 ms, up to 0.4%% of requests fail. Days differ: each has 0.7 to 1.4 times the rate and 0.9 to 1.1 times the latency. Slow tails: the slowest twentieth is Pareto with an exponent of
2 to 3. Findings of a measure less than a quarter of an hour apart are one false alarm; its three figures are counts by measure. A fault counts as found where a finding of its own measure
touches it, and the time is until the minutes that say so are over. A day of the generator is 20 minutes, told to the detector as a day.

The detector was tuned on the seeds from %d, the figures are of the seeds from %d: %d group-days without a fault for each figure, %d runs of each fault. They are the same on every machine.

Repeat: `+"`go tool task bench:anomaly -- -runs %d -faults %d`", r.Markdown(), evaluate.Tuning, r.Plan.First, 7*r.Plan.Runs, r.Plan.Faults, r.Plan.Runs, r.Plan.Faults)
}

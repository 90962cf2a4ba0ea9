// Command cmd evaluates the decision engine: delay, misses and mistakes under labelled
// traffic, against two stand-ins on the same streams.
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
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "evaluate:", err)
		os.Exit(1)
	}
}

func run() error {
	var (
		runs    = flag.Int("runs", 100, "`runs` of each fault")
		days    = flag.Float64("days", 60, "`group-days` without a fault")
		alone   = flag.Float64("alone", 0, "more `group-days` without a fault, which only our method is played on")
		workers = flag.Int("workers", runtime.NumCPU(), "`workers`; the result does not depend on them")
		tune    = flag.Bool("tune", false, "show what the settings of the stand-ins do on the tuning seeds, and nothing else")
		write   = flag.String("write", "", "replace the section in a markdown `file`")
	)
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("argument %q is not known", flag.Arg(0))
	case *runs < 1 || *runs > 1<<20:
		return errors.New("runs: must be between 1 and 1048576")
	case !(*days > 0 && *days <= 1e6):
		return errors.New("days: must be above 0 and at most 1000000")
	case !(*alone >= 0 && *alone <= 1e6):
		return errors.New("alone: must be between 0 and 1000000")
	case *workers < 1:
		return errors.New("workers: must be positive")
	}
	if *tune {
		fmt.Println("wrong isolations, delay, setting")
		for _, c := range evaluate.Tune(200, 60, *workers) {
			fmt.Println(c.Wrong, c.Delay.Round(time.Millisecond), c)
		}
		return nil
	}
	began := time.Now()
	r := evaluate.Evaluate(evaluate.Plan{
		First: evaluate.Reporting, Runs: *runs, Days: *days, Alone: *alone, Length: 20 * time.Minute, Workers: *workers,
	}, evaluate.Cells(), evaluate.Methods())
	fmt.Print(r.Markdown(), "\n", r.Figures())
	fmt.Fprintf(os.Stderr, "took %s\n", time.Since(began).Round(time.Second))
	if *write == "" {
		return nil
	}
	return benchdoc.Write(*write, "bench:decide", section(&r))
}

func section(r *evaluate.Report) string {
	t := evaluate.Tuned
	days, _ := r.Total(0)
	return fmt.Sprintf(`## How soon and how surely a fault is found

%s
Six groups in two pools, latency lognormal with a median of 50 to 70 ms and a P95 near 180 ms, up to 0.4%% errors, objectives of the default policy
(P95 500 ms, 5%% errors). A delay counts from the onset of the fault to the decision, four looks a second; a span can be counted 0.1 to 0.5 s after its
request has ended, which is the product's own pipeline, so a request of 0.6 s is known after 0.7 to 1.1 s. Percentiles of windows are exact but for buckets of 2%% (the store's are 2.2%%). What is decided
does not change the traffic: all methods see the same requests. A fault that is not found within its minute counts as missed, and as longer than all others.

- canary, in the manner of Flagger: thresholds at a fixed interval, consecutive failures. Quiet: %s; quick: %s.
- burn rate, of the SRE workbook: 14.4x, 6x and 1x over two windows each, shortened. Quiet: %s; quick: %s.
- thresholds alone: this engine with its test switched off (significance 1) and three bad evaluations in a row, much as it was before; on a part of the days.

Stand-ins were tuned on the seeds from %d (the two ends of their trade-off between delay and wrong isolations, `+"`-tune`"+`); the figures are of the seeds from %d,
%d runs of each fault and group-days without one, %.0f of them ours. They are the same on every machine.

Repeat: `+"`go tool task bench:decide -- -runs %d -days %.0f -alone %.0f`"+` (without the last, three minutes)`, r.Markdown(), t.QuietCanary, t.QuickCanary, t.QuietBurn, t.QuickBurn,
		evaluate.Tuning, r.Plan.First, r.Plan.Runs, days, r.Plan.Runs, r.Plan.Days, r.Plan.Alone)
}

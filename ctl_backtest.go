package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/controlplane/backtest"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// maxRecorded is how many decisions of the past are compared, at most.
const maxRecorded = 100_000

func (c *control) backtestCommand() *cobra.Command {
	a := &asked{control: c}
	var apart time.Duration
	cmd := c.storeCommand("backtest POLICY", "what a policy file would have decided on stored statistics, against what was decided", cobra.ExactArgs(1), a,
		func(ctx context.Context, s *store.Store, w sli.Window, out io.Writer, args []string) error {
			if apart < 0 {
				return fmt.Errorf("apart: %s is negative", apart)
			}
			document, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read policy: %w", err)
			}
			p, err := parsePolicy(args[0], document)
			if err != nil {
				return err
			}
			r, err := runBacktest(ctx, s, p, w, apart)
			if err != nil {
				return err
			}
			return a.print(out, r, func(t *tabwriter.Writer) { printBacktest(t, r) })
		})
	a.flags(cmd, 24*time.Hour, 0)
	cmd.Flags().DurationVar(&apart, "apart", 10*time.Second, "decisions this far apart may still be the same")
	return cmd
}

// runBacktest plays what the store has of w, whole seconds that are over.
func runBacktest(ctx context.Context, s *store.Store, p policy.Policy, w sli.Window, apart time.Duration) (backtest.Report, error) {
	w = sli.Window{From: w.From.Truncate(time.Second), To: w.To.Truncate(time.Second)}
	player := backtest.New(backtest.Setup{Policy: p.Decide, Homes: p.Homes(), Isolatable: p.Isolatable()})
	var last time.Time
	seconds := 0
	if err := s.Seconds(ctx, w, p.Decide.IgnoreRoutes, func(sec sli.Second) error {
		if !sec.Start.Equal(last) {
			last = sec.Start
			seconds++
		}
		player.Add(sec)
		return nil
	}); err != nil {
		return backtest.Report{}, err
	}
	player.Until(w.To)
	was, err := s.DecisionsIn(ctx, w, maxRecorded)
	if err != nil {
		return backtest.Report{}, err
	}
	slices.Reverse(was) // oldest first
	r := backtest.Compare(player.Decided(), was, apart)
	r.From, r.To, r.Seconds = w.From, w.To, seconds
	return r, nil
}

func printBacktest(t io.Writer, r backtest.Report) {
	fmt.Fprintln(t, "TIME\tGROUP\tACTION\tVERDICT\tWOULD BE\tWAS\tREASON")
	for _, row := range r.Rows {
		d := row.Decision()
		would, was := "-", "-"
		if row.Would != nil {
			would = row.Would.Time.Local().Format("15:04:05.00")
		}
		if row.Was != nil {
			was = row.Was.Time.Local().Format("15:04:05.00")
		}
		fmt.Fprintf(t, "%s\t%s (%s+%s)\t%s\t%s\t%s\t%s\t%s\n", d.Time.Local().Format(time.DateTime), d.Group, plain(d.Env), plain(d.Tenant), d.Action, row.Verdict, would, was, strings.TrimSpace(d.Reason))
	}
	fmt.Fprintf(t, "\n%s to %s, %d seconds with requests: %d moves the same, %d only would be, %d only were, %d by hand; %d holds would be, %d were\n",
		r.From.Local().Format(time.DateTime), r.To.Local().Format(time.DateTime), r.Seconds,
		r.Counts[backtest.Same], r.Counts[backtest.OnlyWould], r.Counts[backtest.OnlyWas], r.Counts[backtest.ByHand], r.HoldsWould, r.HoldsWas)
}

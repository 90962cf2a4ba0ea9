package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/anomaly"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

func (c *control) anomaliesCommand() *cobra.Command {
	a := &asked{control: c}
	days := 7
	cmd := c.storeCommand("anomalies [GROUP]", "what is out of the ordinary for a group by its own past: the same time of other days, and the minutes before", cobra.MaximumNArgs(1), a,
		func(ctx context.Context, s *store.Store, w sli.Window, out io.Writer, args []string) error {
			if days < 3 || time.Duration(days)*24*time.Hour > maxSince {
				return fmt.Errorf("days: %d is not between 3 and %d", days, maxSince/(24*time.Hour))
			}
			var only []group.ID
			if len(args) == 1 {
				id := group.ID(args[0])
				if !id.Valid() {
					return errGroupID(args[0])
				}
				only = append(only, id)
			}
			found, err := findAnomalies(ctx, s, w, days, only...)
			if err != nil {
				return err
			}
			return a.print(out, found, func(t *tabwriter.Writer) { printAnomalies(t, found) })
		})
	a.flags(cmd, time.Hour, 0)
	cmd.Flags().IntVar(&days, "days", days, "how many days before make what is usual; at least 3 of each hour are wanted")
	return cmd
}

// findAnomalies reads the days before w, one by one, since an answer of the store is bounded.
func findAnomalies(ctx context.Context, s *store.Store, w sli.Window, days int, only ...group.ID) ([]anomaly.Unusual, error) {
	w.To = w.To.Truncate(time.Minute) // a minute that is not over is a quiet one
	all := map[group.ID]*anomaly.Series{}
	for from := w.From.AddDate(0, 0, -days).Truncate(time.Minute); from.Before(w.To); {
		to := from.Add(24 * time.Hour)
		if to.After(w.To) {
			to = w.To
		}
		day, err := s.GroupSeries(ctx, sli.Window{From: from, To: to}, time.Minute, only...)
		if err != nil {
			return nil, err
		}
		anomaly.Join(all, anomaly.Of(day))
		from = to
	}
	settings := anomaly.DefaultSettings()
	settings.Zone = time.Local
	found, _ := anomaly.Look(settings, all, w.From)
	return append([]anomaly.Unusual{}, found...), nil // an empty list in JSON, not null
}

func printAnomalies(t io.Writer, found []anomaly.Unusual) {
	if len(found) == 0 {
		fmt.Fprintln(t, "nothing is out of the ordinary")
		return
	}
	fmt.Fprintln(t, "TIME\tGROUP\tWHAT")
	for _, u := range found {
		fmt.Fprintf(t, "%s\t%s (%s+%s)\t%s\n", u.Time.Local().Format(time.DateTime), u.Group, plain(u.Env), plain(u.Tenant), u.Words)
	}
}

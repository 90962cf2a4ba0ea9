package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/contrast"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// asked is what all questions about what is stored have in common.
type asked struct {
	*control
	since time.Duration
	limit int
}

// maxSince is how far back any question may go: statistics are kept for as long.
const maxSince = 14 * 24 * time.Hour

func (a *asked) flags(cmd *cobra.Command, since time.Duration, limit int) {
	cmd.Flags().DurationVar(&a.since, "since", since, "how far back to look")
	if limit > 0 {
		cmd.Flags().IntVar(&a.limit, "limit", limit, "the most to show")
	}
}

func (a *asked) window(now time.Time) (sli.Window, error) {
	if a.since <= 0 || a.since > maxSince {
		return sli.Window{}, fmt.Errorf("since: %s is not above 0 and at most %s", a.since, maxSince)
	}
	return sli.Window{From: now.Add(-a.since), To: now}, nil
}

// print writes v as JSON, or as the table that draw makes of it.
func (a *asked) print(w io.Writer, v any, draw func(*tabwriter.Writer)) error {
	return a.control.print(w, v, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		draw(t)
		_ = t.Flush() // as every print to a terminal
	})
}

// storeCommand is a command that reads the trace store.
func (c *control) storeCommand(use, short string, args cobra.PositionalArgs, a *asked, do func(ctx context.Context, s *store.Store, w sli.Window, out io.Writer, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			w, err := a.window(time.Now())
			if err != nil {
				return err
			}
			cfg, err := c.load()
			if err != nil {
				return err
			}
			s, err := openStore(cfg)
			if err != nil {
				return fmt.Errorf("%w; is --data the folder of a running tracegate?", err)
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			return do(cmd.Context(), s, w, cmd.OutOrStdout(), args)
		},
	}
}

func (c *control) tracesCommand() *cobra.Command {
	a, q := &asked{control: c}, store.TraceQuery{}
	var id string
	cmd := c.storeCommand("traces", "find requests by what is known of them; newest first", cobra.NoArgs, a,
		func(ctx context.Context, s *store.Store, w sli.Window, out io.Writer, _ []string) error {
			if id != "" && !group.ID(id).Valid() {
				return errGroupID(id)
			}
			q.Group, q.Window, q.Limit = group.ID(id), w, a.limit
			spans, err := s.Traces(ctx, q)
			if err != nil {
				return err
			}
			return a.print(out, notNil(spans), func(t *tabwriter.Writer) { printTraces(t, spans) })
		})
	a.flags(cmd, 15*time.Minute, 20)
	f := cmd.Flags()
	f.StringVar(&id, "group", "", "traffic group")
	f.StringVar(&q.Env, "env", "", "environment")
	f.StringVar(&q.Tenant, "tenant", "", "tenant")
	f.StringVar(&q.Service, "service", "", "service that served")
	f.StringVar(&q.Pool, "pool", "", "pool that served")
	f.StringVar(&q.Route, "route", "", "route")
	f.DurationVar(&q.MinDuration, "min-duration", 0, "only requests that took as long")
	f.BoolVar(&q.ErrorsOnly, "errors", false, "only requests that failed")
	f.StringToStringVar(&q.Attributes, "attr", nil, "attribute of a span or its resource, `name=value`; all that are given must be in the trace")
	cmd.AddCommand(c.traceShowCommand(), c.traceRoutesCommand(), c.traceCompareCommand())
	return cmd
}

func (c *control) traceShowCommand() *cobra.Command {
	a := &asked{control: c}
	cmd := c.storeCommand("show TRACE", "one trace as a tree: what each hop took, and how much of it itself", cobra.ExactArgs(1), a,
		func(ctx context.Context, s *store.Store, _ sli.Window, out io.Writer, args []string) error {
			id := strings.ToLower(args[0])
			if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
				return fmt.Errorf("trace: %q has not 32 hex digits", args[0])
			}
			spans, err := s.Trace(ctx, id)
			if err != nil {
				return err
			}
			if len(spans) == 0 {
				return fmt.Errorf("trace: there is no %s (any more)", id)
			}
			tree := store.Tree(spans)
			return a.print(out, tree, func(t *tabwriter.Writer) { printTree(t, tree, spans[0].Timestamp) })
		})
	a.flags(cmd, maxSince, 0)
	_ = cmd.Flags().MarkHidden("since") // a trace is looked for wherever it is
	return cmd
}

func (c *control) traceRoutesCommand() *cobra.Command {
	a := &asked{control: c}
	cmd := c.storeCommand("routes GROUP", "routes of a group, highest P95 first", cobra.ExactArgs(1), a,
		func(ctx context.Context, s *store.Store, w sli.Window, out io.Writer, args []string) error {
			id := group.ID(args[0])
			if !id.Valid() {
				return errGroupID(args[0])
			}
			routes, err := s.SlowestRoutes(ctx, id, w, a.limit)
			if err != nil {
				return err
			}
			return a.print(out, notNil(routes), func(t *tabwriter.Writer) { printRoutes(t, routes) })
		})
	a.flags(cmd, 15*time.Minute, 20)
	return cmd
}

func (c *control) traceCompareCommand() *cobra.Command {
	a := &asked{control: c}
	var slow time.Duration
	var sample int
	var ignore []string
	cmd := c.storeCommand("compare GROUP [OTHER]", "what separates bad requests of a group from good ones, or one group from another", cobra.RangeArgs(1, 2), a,
		func(ctx context.Context, s *store.Store, w sli.Window, out io.Writer, args []string) error {
			first := store.TraceQuery{Window: w, Limit: sample, Slow: slow, Quality: store.Bad, NotRoutes: ignore}
			second, names := first, [2]string{"bad", "good"}
			second.Quality = store.Good
			if len(args) == 2 {
				first.Quality, second.Quality, names = store.AnyQuality, store.AnyQuality, [2]string(args)
			}
			for i, q := range []*store.TraceQuery{&first, &second} {
				arg := args[min(i, len(args)-1)]
				if q.Group = group.ID(arg); !q.Group.Valid() {
					return errGroupID(arg)
				}
			}
			c, err := s.Compare(ctx, first, second, a.limit)
			if err != nil {
				return err
			}
			return a.print(out, c, func(t *tabwriter.Writer) { printComparison(t, names, c) })
		})
	a.flags(cmd, 15*time.Minute, 10)
	cmd.Flags().DurationVar(&slow, "slow", 500*time.Millisecond, "what takes as long is bad, as is what failed")
	cmd.Flags().StringSliceVar(&ignore, "ignore-route", nil, "routes to leave out, such as those that are slow on purpose")
	cmd.Flags().IntVar(&sample, "sample", 300, "traces to look at on either side, at most")
	return cmd
}

func errGroupID(s string) error { return fmt.Errorf("group: %q is not six lower-case hex digits", s) }

// notNil makes an empty list of none, for JSON.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func printTraces(t io.Writer, spans []store.Span) {
	fmt.Fprintln(t, "TIME\tTRACE\tGROUP\tTENANT\tROUTE\tPOOL\tSTATUS\tDURATION")
	for _, s := range spans {
		status := cmp.Or(s.Attributes["http.response.status_code"], "-")
		if s.Status == "Error" {
			status += " error"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Timestamp.Local().Format("15:04:05.000"), s.TraceID, s.Traffic.Group,
			plain(s.Traffic.Tenant), plain(cmp.Or(s.Traffic.Route, s.Name)), plain(cmp.Or(s.Traffic.Pool, "-")), plain(status), short(s.Duration))
	}
}

func printTree(t io.Writer, roots []*store.Node, begin time.Time) {
	fmt.Fprintln(t, "START\tDURATION\tSELF\tSPAN\tHOP\tPOOL\tSTATUS")
	var walk func(nodes []*store.Node, indent string)
	walk = func(nodes []*store.Node, indent string) {
		for _, n := range nodes {
			status := ""
			if n.Status == "Error" {
				status = strings.TrimSpace("error " + n.StatusText)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s%s: %s\t%s\t%s\t%s\n", short(n.Timestamp.Sub(begin)), short(n.Duration), short(n.Self), indent,
				plain(n.Service), plain(n.Name), plain(n.Hop), plain(cmp.Or(n.Traffic.Pool, "-")), plain(status))
			walk(n.Children, indent+"  ")
		}
	}
	walk(roots, "")
}

func printRoutes(t io.Writer, routes []store.RouteStats) {
	fmt.Fprintln(t, "ROUTE\tSERVICE\tPOOL\tREQUESTS\tERRORS\t2XX\t4XX\t5XX\tP50\tP95\tP99\tALL TOGETHER")
	for _, r := range routes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", plain(cmp.Or(r.Route, "-")), plain(r.Service), plain(cmp.Or(r.Pool, "-")),
			r.Requests, r.Errors, r.Classes[2], r.Classes[4], r.Classes[5], short(r.P50), short(r.P95), short(r.P99), short(r.Time))
	}
}

func printComparison(t io.Writer, names [2]string, c store.Comparison) {
	fmt.Fprintf(t, "%d traces %s, %d %s; what separates them beyond chance, best first:\n", c.First, names[0], c.Second, names[1])
	fmt.Fprintf(t, "ATTRIBUTE\tVALUE\t%s\t%s\tCRAMER'S V\n", strings.ToUpper(names[0]), strings.ToUpper(names[1]))
	rows := func(list []contrast.Separation) {
		for _, s := range list {
			fmt.Fprintf(t, "%s\t%s\t%.0f%%\t%.0f%%\t%.2f\n", plain(s.Attribute), plain(s.Value), 100*s.First, 100*s.Second, s.V)
		}
	}
	rows(c.Causes)
	if len(c.Outcomes) > 0 {
		fmt.Fprintln(t, "what came of it:")
		rows(c.Outcomes)
	}
}

// short writes a duration with three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second || d <= -10*time.Second:
		return d.Round(time.Second).String()
	case d >= 100*time.Millisecond || d <= -100*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(10 * time.Microsecond).String()
	}
}

// plain is text that a client may have chosen, safe to write to a terminal.
func plain(s string) string {
	const most = 100
	n := 0
	return strings.Map(func(r rune) rune {
		if n++; n > most {
			return -1
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
)

func ctlCommand(opts *options) *cobra.Command {
	cmd := &cobra.Command{Use: "ctl", Short: "ask and steer the control plane"}
	cmd.AddCommand(
		controlCommand(opts, "status", "what is served to which edge, and what is wrong", cobra.NoArgs,
			func(ctx context.Context, c *ctlapi.Client, w io.Writer, _ []string) error {
				s, err := c.Status(ctx)
				if err != nil {
					return err
				}
				printStatus(w, s)
				return nil
			}),
		controlCommand(opts, "groups", "every group, where it is served and how it fares", cobra.NoArgs,
			func(ctx context.Context, c *ctlapi.Client, w io.Writer, _ []string) error {
				groups, err := c.Groups(ctx)
				if err != nil {
					return err
				}
				printGroups(w, groups)
				return nil
			}),
		controlCommand(opts, "decisions", "the last decisions with their reasons", cobra.NoArgs,
			func(ctx context.Context, c *ctlapi.Client, w io.Writer, _ []string) error {
				decisions, err := c.Decisions(ctx, 50)
				if err != nil {
					return err
				}
				printDecisions(w, decisions)
				return nil
			}),
		orderCommand(opts, "isolate", "move a group to the isolated pool, until it is released", (*ctlapi.Client).Isolate),
		orderCommand(opts, "release", "send a group back to its own pool, whoever moved it", (*ctlapi.Client).Release),
		controlCommand(opts, "policy FILE", "check a whole policy document and put it into force", cobra.ExactArgs(1),
			func(ctx context.Context, c *ctlapi.Client, _ io.Writer, args []string) error {
				document, err := os.ReadFile(args[0])
				if err != nil {
					return err
				}
				return c.PutPolicy(ctx, document)
			}),
	)
	return cmd
}

type controlFunc func(context.Context, *ctlapi.Client, io.Writer, []string) error

func controlCommand(opts *options, use, short string, args cobra.PositionalArgs, do controlFunc) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := opts.load()
			if err != nil {
				return err
			}
			client, err := controlClient(cfg)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 15*time.Second)
			defer cancel()
			return do(ctx, client, cmd.OutOrStdout(), args)
		},
	}
}

type orderFunc func(*ctlapi.Client, context.Context, group.ID, ctlapi.Order) (decide.Decision, error)

func orderCommand(opts *options, verb, short string, order orderFunc) *cobra.Command {
	var reason string
	var duration time.Duration
	cmd := controlCommand(opts, verb+" GROUP", short, cobra.ExactArgs(1),
		func(ctx context.Context, c *ctlapi.Client, w io.Writer, args []string) error {
			d, err := order(c, ctx, group.ID(args[0]), ctlapi.Order{Reason: reason, By: operator(), ForMS: duration.Milliseconds()})
			if err != nil {
				return err
			}
			printDecisions(w, []decide.Decision{d})
			return nil
		})
	cmd.Flags().StringVar(&reason, "reason", "by hand", "why, for the record")
	cmd.Flags().DurationVar(&duration, "for", 0, "how long it holds against the policy (0: isolate until released, release for a minute)")
	return cmd
}

// controlClient calls the control plane that cfg names with the token in its data folder.
func controlClient(cfg Config) (*ctlapi.Client, error) {
	token, err := readSecret(cfg.secrets(), secretControl)
	if err != nil {
		return nil, fmt.Errorf("%w; is --data the folder of a running tracegate?", err)
	}
	return ctlapi.NewClient(cfg.ControlPlane.API, token), nil
}

func operator() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

func printStatus(w io.Writer, s ctlapi.Status) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintf(t, "plan\t%s\n", s.Version)
	fmt.Fprintf(t, "last acknowledged\t%s\n", s.LastGood)
	fmt.Fprintf(t, "mode\t%s\n", s.Mode)
	fmt.Fprintf(t, "telemetry\t%s\n", cmp.Or(s.TelemetryReason, "fresh"))
	for _, name := range sortedKeys(s.Sources) {
		fmt.Fprintf(t, "source %s\t%s\t%s\n", name, s.Sources[name].File, cmp.Or(s.Sources[name].Error, "in force"))
	}
	if s.NotDurable != "" {
		fmt.Fprintf(t, "decisions\tnot kept on disk: %s\n", s.NotDurable)
	}
	for _, e := range s.Edges {
		fmt.Fprintf(t, "edge %s\tconnected %t\tin sync %t\n", e.ID, e.Connected, e.InSync)
		for _, n := range e.Nacks {
			fmt.Fprintf(t, "  refused %s %s\t%d times\t%s\n", n.Type, n.Resource, n.Count, n.Reason)
		}
	}
}

func printGroups(w io.Writer, groups []ctlapi.Group) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "GROUP\tENV\tTENANT\tCOHORT\tPOOL\tSTATE\tQPS\tP95\tERRORS")
	for _, g := range groups {
		var qps, errs float64
		var p95 time.Duration
		for _, s := range g.Stats {
			qps += s.QPS()
			errs = max(errs, s.ErrorRatio())
			p95 = max(p95, s.P95)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%.1f\t%s\t%.1f%%\n", g.Group, g.Env, g.Tenant, cmp.Or(g.Cohort, "-"), g.Pool, g.State,
			qps, p95.Round(100*time.Microsecond), 100*errs)
	}
}

func printDecisions(w io.Writer, decisions []decide.Decision) {
	for _, d := range decisions {
		fmt.Fprintf(w, "%s  %-8s %s (%s+%s)  %s -> %s  by %s\n    %s\n", d.Time.Local().Format("2006-01-02 15:04:05.000"),
			d.Action, d.Group, d.Env, d.Tenant, d.FromPool, d.ToPool, d.By, strings.TrimSpace(d.Reason))
		for _, cause := range d.Causes {
			fmt.Fprintln(w, "    perhaps because", cause)
		}
	}
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
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
	c := control{opts: opts}
	cmd.PersistentFlags().StringVarP(&c.output, "output", "o", "text", "text or json")
	cmd.AddCommand(
		c.command("status", "what is served to which edge, and what is wrong", cobra.NoArgs, c.status),
		c.command("groups", "every group, where it is served and how it fares", cobra.NoArgs, c.groups),
		c.command("decisions", "the last decisions with their reasons", cobra.NoArgs, c.decisions),
		c.tracesCommand(),
		c.backtestCommand(),
		c.orderCommand("isolate", "move a group to the isolated pool, until it is released", (*ctlapi.Client).Isolate),
		c.orderCommand("release", "send a group back to its own pool, whoever moved it", (*ctlapi.Client).Release),
	)
	cmd.AddCommand(c.policyCommands()...)
	cmd.AddCommand(c.explainCommand())
	return cmd
}

// control is what all commands share.
type control struct {
	opts   *options
	output string // text or json
}

// call is one command's work: it returns what JSON shows, and how people see it.
type call func(ctx context.Context, c *ctlapi.Client, args []string) (value any, text func(io.Writer), err error)

func (c *control) command(use, short string, args cobra.PositionalArgs, do call) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			client, err := controlClient(cfg, secretControl)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 15*time.Second)
			defer cancel()
			value, text, err := do(ctx, client, args)
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), value, text)
		},
	}
}

func (c *control) load() (Config, error) {
	if c.output != "text" && c.output != "json" {
		return Config{}, fmt.Errorf("--output: %q is neither text nor json", c.output)
	}
	return c.opts.load()
}

func (c *control) print(w io.Writer, value any, text func(io.Writer)) error {
	if c.output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(value)
	}
	text(w)
	return nil
}

func (c *control) status(ctx context.Context, client *ctlapi.Client, _ []string) (any, func(io.Writer), error) {
	s, err := client.Status(ctx)
	return s, func(w io.Writer) { printStatus(w, s) }, err
}

func (c *control) groups(ctx context.Context, client *ctlapi.Client, _ []string) (any, func(io.Writer), error) {
	groups, err := client.Groups(ctx)
	return groups, func(w io.Writer) { printGroups(w, groups) }, err
}

func (c *control) decisions(ctx context.Context, client *ctlapi.Client, _ []string) (any, func(io.Writer), error) {
	ds, err := client.Decisions(ctx, 50)
	return ds, func(w io.Writer) { printDecisions(w, ds) }, err
}

type orderFunc func(*ctlapi.Client, context.Context, group.ID, ctlapi.Order) (decide.Decision, error)

func (c *control) orderCommand(verb, short string, order orderFunc) *cobra.Command {
	var reason string
	var duration time.Duration
	cmd := c.command(verb+" GROUP", short, cobra.ExactArgs(1),
		func(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
			d, err := order(client, ctx, group.ID(args[0]), ctlapi.Order{Reason: reason, By: operator(), ForMS: duration.Milliseconds()})
			return d, func(w io.Writer) { printDecisions(w, []decide.Decision{d}) }, err
		})
	cmd.Flags().StringVar(&reason, "reason", "by hand", "why, for the record")
	cmd.Flags().DurationVar(&duration, "for", 0, "how long it holds against the policy (0: isolate until released, release for a minute)")
	return cmd
}

// controlClient calls the control plane that cfg names with a token in its data folder.
func controlClient(cfg Config, name string) (*ctlapi.Client, error) {
	token, err := readSecret(cfg.secrets(), name)
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

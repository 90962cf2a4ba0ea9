package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

func ctlCommand(opts *options) *cobra.Command {
	cmd := &cobra.Command{Use: "ctl", Short: "ask and steer the control plane"}
	c := control{opts: opts}
	cmd.PersistentFlags().StringVarP(&c.output, "output", "o", "text", "text or json")
	cmd.PersistentFlags().StringVar(&c.tokenFile, "token-file", "", "file with a token of the control API (default: the operator's, in the data folder)")
	cmd.AddCommand(
		c.command("status", "what is served to which edge, and what is wrong", cobra.NoArgs, c.status),
		c.command("groups", "every group, where it is served and how it fares", cobra.NoArgs, c.groups),
		c.decisionsCommand(),
		c.command("endpoints", "the instances that edges have, by service and pool, and which of them drain", cobra.NoArgs, c.endpoints),
		c.drainCommand(),
		c.auditCommand(),
		c.tokenCommand(),
		c.tracesCommand(),
		c.backtestCommand(),
		c.anomaliesCommand(),
		c.confirmCommand(),
		c.orderCommand("isolate", "move a group to the isolated pool, until it is released", (*ctlapi.Client).Isolate),
		c.pinCommand(),
		c.shedCommand(),
		c.orderCommand("lift", "end a group's limit, whoever's it is, and leave the group where it is", (*ctlapi.Client).Lift),
		c.orderCommand("release", "send a group back to its own pool, whoever moved it", (*ctlapi.Client).Release),
	)
	cmd.AddCommand(c.policyCommands()...)
	cmd.AddCommand(c.explainCommand(), c.settingsCommand())
	return cmd
}

// control is what all commands share.
type control struct {
	opts      *options
	output    string // text or json
	tokenFile string // empty: the operator's
}

// call is one command's work: it returns what JSON shows, and how people see it. With an
// exitError both are shown, and say why.
type call func(ctx context.Context, c *ctlapi.Client, args []string) (value any, text func(io.Writer), err error)

func (c *control) command(use, short string, args cobra.PositionalArgs, do call) *cobra.Command {
	return c.patient(use, short, args, func(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
		ctx, cancel := context.WithTimeout(ctx, commandTimeout)
		defer cancel()
		return do(ctx, client, args)
	})
}

// commandTimeout bounds a command that waits for nothing but answers.
const commandTimeout = 15 * time.Second

// patient is a command that bounds its time by itself.
func (c *control) patient(use, short string, args cobra.PositionalArgs, do call) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			client, err := c.client(cfg)
			if err != nil {
				return err
			}
			value, text, err := do(cmd.Context(), client, args)
			if e, ok := errors.AsType[*protocol.Error](err); ok && !e.Temporary {
				return codedError{exitRefused, err}
			}
			if _, shown := errors.AsType[exitError](err); err != nil && !shown {
				return err
			}
			if bad := c.print(cmd.OutOrStdout(), value, text); bad != nil {
				return bad
			}
			return err
		},
	}
}

// client calls the control plane with the token that was named.
func (c *control) client(cfg Config) (*ctlapi.Client, error) {
	if c.tokenFile == "" {
		return controlClient(cfg, secretControl)
	}
	raw, err := os.ReadFile(c.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	return newControlClient(cfg, strings.TrimSpace(string(raw)))
}

func (c *control) load() (Config, error) {
	if err := c.checkOutput(); err != nil {
		return Config{}, err
	}
	return c.opts.load()
}

func (c *control) checkOutput() error {
	if c.output != "text" && c.output != "json" {
		return fmt.Errorf("--output: %q is neither text nor json", c.output)
	}
	return nil
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

func (c *control) decisionsCommand() *cobra.Command {
	var since time.Duration
	var id, action string
	q := ctlapi.DecisionQuery{Limit: 50}
	cmd := c.command("decisions", "the last decisions with their reasons", cobra.NoArgs,
		func(ctx context.Context, client *ctlapi.Client, _ []string) (any, func(io.Writer), error) {
			q.Group, q.Action, q.Since = group.ID(id), decide.Action(action), ago(since)
			ds, err := client.FindDecisions(ctx, q)
			return ds, func(w io.Writer) { printDecisions(w, ds) }, err
		})
	cmd.Flags().DurationVar(&since, "since", 0, "how far back to look (0: as far as the control plane remembers)")
	cmd.Flags().StringVar(&id, "group", "", "only those about this group")
	cmd.Flags().StringVar(&action, "action", "", "only these: hold, prewarm, isolate, pin, release, shed, lift, rollback")
	cmd.Flags().IntVar(&q.Limit, "limit", q.Limit, "how many at most, the newest")
	return cmd
}

// ago is a time before now; zero where nothing was asked for.
func ago(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return time.Now().Add(-d)
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

// pinCommand is an order with a pool, and with an end: nobody remembers a pin for good.
func (c *control) pinCommand() *cobra.Command {
	var pool string
	cmd := c.orderCommand("pin", "have a pool serve a group for a while, whatever the policy thinks of it",
		func(client *ctlapi.Client, ctx context.Context, id group.ID, o ctlapi.Order) (decide.Decision, error) {
			o.Pool = pool
			return client.Pin(ctx, id, o)
		})
	cmd.Flags().StringVar(&pool, "pool", "", "pool that serves it; services without that pool serve it as before")
	_ = cmd.MarkFlagRequired("pool")
	_ = cmd.MarkFlagRequired("for")
	return cmd
}

// shedCommand is an order with a rate.
func (c *control) shedCommand() *cobra.Command {
	var requests uint32
	cmd := c.orderCommand("shed", "limit how many requests a second each edge lets a group make",
		func(client *ctlapi.Client, ctx context.Context, id group.ID, o ctlapi.Order) (decide.Decision, error) {
			o.Requests = requests
			return client.Shed(ctx, id, o)
		})
	cmd.Flags().Uint32Var(&requests, "requests", 0, "requests a second")
	_ = cmd.MarkFlagRequired("requests")
	return cmd
}

func (c *control) confirmCommand() *cobra.Command {
	var reason string
	cmd := c.command("confirm DECISION", "do what a decision recommends, in a policy of mode recommend", cobra.ExactArgs(1),
		func(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
			d, err := client.Confirm(ctx, args[0], ctlapi.Order{Reason: reason, By: operator()})
			return d, func(w io.Writer) { printDecisions(w, []decide.Decision{d}) }, err
		})
	cmd.Flags().StringVar(&reason, "reason", "by hand", "why, for the record")
	return cmd
}

// controlClient calls the control plane that cfg names with a token in its data folder.
func controlClient(cfg Config, name string) (*ctlapi.Client, error) {
	token, err := readSecret(cfg.secrets(), name)
	if err != nil {
		return nil, fmt.Errorf("%w; is --data the folder of a running tracegate?", err)
	}
	return newControlClient(cfg, token)
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
	fmt.Fprintf(t, "telemetry\t%s\n", telemetryWords(s))
	for _, name := range sortedKeys(s.Sources) {
		src := s.Sources[name]
		for _, lost := range src.Lost {
			fmt.Fprintf(t, "source %s\tkeeps its last addresses of\t%s\n", name, lost)
		}
		if len(src.Problems) == 0 {
			state := cmp.Or(src.Error, "in force")
			if !src.Expires.IsZero() {
				state += ", expires " + src.Expires.Local().Format(time.DateOnly)
			}
			fmt.Fprintf(t, "source %s\t%s\t%s\n", name, src.File, state)
			continue
		}
		fmt.Fprintf(t, "source %s\t%s\tcannot be used, the version before it goes on\n", name, src.File)
		for _, p := range src.Problems {
			fmt.Fprintf(t, "  %s\n", p.In(src.File))
		}
	}
	if s.LastGoodProblem != "" {
		fmt.Fprintf(t, "last good\tnot used: %s\n", s.LastGoodProblem)
	}
	if r := s.RolledBack; r != nil {
		fmt.Fprintf(t, "rolled back\trevision %d at %s, revision %d is in force: %s\n", r.From, r.Time.Local().Format(time.DateTime), r.To, r.Why)
	}
	if tr := s.Trial; tr != nil {
		fmt.Fprintln(t, "on trial\t"+trialWords(*tr))
	}
	for _, d := range s.Drains {
		fmt.Fprintf(t, "draining\t%s/%s %s\t%s\n", d.Service, d.Pool, d.Instance, drainWords(d))
	}
	for _, q := range s.Quarantined {
		printRefusal(t, "in quarantine", q)
	}
	if s.Rejected != nil && len(s.Quarantined) == 0 {
		printRefusal(t, "refused", *s.Rejected)
	}
	if s.NotDurable != "" {
		fmt.Fprintf(t, "decisions\tnot kept on disk: %s\n", s.NotDurable)
	}
	t.Flush() // what is long above makes no column wide below
	printSaturation(t, s.Saturation)
	printEdges(t, s.Edges)
	printClients(t, s.Clients)
}

// printSaturation says how full pools are, each resource on its own line.
func printSaturation(t *tabwriter.Writer, pools []sli.Saturation) {
	for _, s := range pools {
		resource := "queue " + s.Resource
		if s.Resource == sli.CPU {
			resource = "CPU"
		}
		fmt.Fprintf(t, "pool %s.%s\t%s\t%.0f%% used\tthe fullest of %d instances %.0f%%\n", s.Service, s.Pool, resource, 100*s.Mean, s.Instances, 100*s.Highest)
	}
	t.Flush()
}

func printEdges(t *tabwriter.Writer, edges []ctlapi.Edge) {
	for _, e := range edges {
		connected := "connected"
		if !e.Connected {
			connected = "not connected"
		}
		fmt.Fprintf(t, "edge %s, %s since %s\n", e.ID, connected, e.Since.Local().Format(time.DateTime))
		for _, ty := range e.Types {
			since := "since " + ty.Since.Local().Format(time.DateTime)
			if ty.Reason != "" {
				since += ": " + ty.Reason
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\n", ty.Type, strings.ToUpper(ty.State), since)
		}
		t.Flush()
		for _, n := range e.Nacks {
			fmt.Fprintf(t, "  refused %d times, last %s: %s %s: %s\n", n.Count, n.Time.Local().Format(time.DateTime), n.Type, n.Resource, n.Reason)
		}
	}
}

// trialWords says which policy is tried, where and how far that is.
func trialWords(tr ctlapi.Trial) string {
	s := fmt.Sprintf("revision %d", tr.Revision)
	switch {
	case tr.Edge == "":
		s += " waits for an edge"
	case tr.Until.IsZero():
		s += fmt.Sprintf(" at edge %s since %s, which has not acknowledged it yet", tr.Edge, tr.Since.Local().Format(time.TimeOnly))
	default:
		s += fmt.Sprintf(" at edge %s until %s: %s", tr.Edge, tr.Until.Local().Format(time.TimeOnly), tr.Measured)
	}
	if tr.Next > 0 {
		s += fmt.Sprintf("; then revision %d", tr.Next)
	}
	return s
}

func printClients(w io.Writer, c *ctlapi.Clients) {
	if c == nil {
		return
	}
	fmt.Fprintf(w, "gRPC clients\tconnected %d\twaiting %d\n", c.Connected, c.Waiting)
	if c.Problem != "" {
		fmt.Fprintf(w, "  not served the newest plan: %s\n", c.Problem)
	}
	for _, n := range c.Nacks {
		fmt.Fprintf(w, "  %s refused %s %s\t%d times\t%s\n", n.Client, n.Nack.Type, n.Nack.Resource, n.Nack.Count, n.Nack.Reason)
	}
}

func printRefusal(w io.Writer, what string, r ctlapi.Rejection) {
	fmt.Fprintf(w, "%s\t%s %s\tsince %s, by edge %s: %s\n", what, r.Nack.Type, r.Nack.Resource, r.Time.Local().Format(time.DateTime), r.Edge, r.Nack.Reason)
	for _, p := range r.Places {
		fmt.Fprintf(w, "  %s\n", p)
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
		what := fmt.Sprintf("%s (%s+%s)  %s -> %s", d.Group, d.Env, d.Tenant, d.FromPool, d.ToPool)
		if d.Group == "" && d.Revision != nil {
			what = fmt.Sprintf("policy  revision %d -> %d", d.Revision.From, d.Revision.To)
		}
		fmt.Fprintf(w, "%s  %-8s %s  by %s\n    %s\n", d.Time.Local().Format("2006-01-02 15:04:05.000"), d.Action, what, d.By, strings.TrimSpace(d.Reason))
		for _, cause := range d.Causes {
			fmt.Fprintln(w, "    perhaps because", cause)
		}
		if d.Outcome != nil {
			fmt.Fprintln(w, "    since then", d.Outcome.Words)
		}
		switch {
		case d.Advice != "":
			fmt.Fprintf(w, "    to %s: tracegate ctl confirm %s\n", d.Advice, d.ID)
		case d.Undo != "":
			fmt.Fprintln(w, "    undo:", d.Undo)
		}
	}
}

func telemetryWords(s ctlapi.Status) string {
	switch s.Telemetry {
	case ctlapi.TelemetryNoTraffic:
		return "no traffic (all that was received is stored)"
	case ctlapi.TelemetryNoData:
		return "no data: " + s.TelemetryReason
	}
	return cmp.Or(s.TelemetryReason, "fresh")
}

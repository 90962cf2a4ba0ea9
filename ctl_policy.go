package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
)

func (c *control) policyCommands() []*cobra.Command {
	var reason string
	put := c.patient("policy [FILE]", "put a whole policy document into force (apply FILE does too), or show the one that is", fileWhereApplied,
		func(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
			if len(args) == 0 {
				d, err := client.Policy(ctx)
				return d, func(w io.Writer) { io.WriteString(w, d.Document) }, err
			}
			document, err := os.ReadFile(args[0])
			if err != nil {
				return nil, nil, err
			}
			if _, err := parsePolicy(args[0], document); err != nil {
				return nil, nil, err
			}
			return c.put(ctx, client, document, reason)
		})
	put.Aliases = []string{applyAlias}
	put.Flags().StringVar(&reason, "reason", "", "why, for the history")
	back := c.patient("rollback [REVISION]", "put an earlier policy into force again: the one before, or the one that is named", cobra.MaximumNArgs(1), c.rollback)
	return []*cobra.Command{
		put, back, c.validateCommand(), schemaCommand(),
		c.command("routes", "the rules and routes that edges were last given, in the order they try them", cobra.NoArgs, c.routes),
		c.command("diff FILE|REVISION", "what another policy would change, in the document and at the edge", cobra.ExactArgs(1), c.diff),
		c.command("history", "the policies of the past, who brought them and what became of them", cobra.NoArgs, c.history),
	}
}

// applyAlias is "policy FILE" by another name.
const applyAlias = "apply"

// fileWhereApplied lets "policy" go without a file, and shows the document then. "apply"
// without one, as of a script whose variable is empty, must not look as if it had worked.
func fileWhereApplied(cmd *cobra.Command, args []string) error {
	if cmd.CalledAs() == applyAlias {
		return cobra.ExactArgs(1)(cmd, args)
	}
	return cobra.MaximumNArgs(1)(cmd, args)
}

// schemaCommand needs no running control plane.
func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "the JSON Schema of the policy, for editors", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(policy.Schema)
			return err
		},
	}
}

// put returns when the document is in force at every edge, was refused or taken back, or
// none of it has happened for a while; the time of a trial does not count.
func (c *control) put(ctx context.Context, client *ctlapi.Client, document []byte, reason string) (any, func(io.Writer), error) {
	if now, err := client.Policy(ctx); err == nil && now.Document == string(document) {
		return now, func(w io.Writer) { fmt.Fprintln(w, "in force already") }, nil
	}
	past, err := client.Revisions(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := client.PutPolicy(ctx, document, operator(), reason); err != nil {
		return nil, nil, err
	}
	tried := 0 // a revision of the same document whose end was another one's
	if len(past) > 0 && past[0].State == ctlapi.RevisionRolledBack {
		tried = past[0].Number
	}
	r, err := await(ctx, client.Revisions, ctlapi.DigestOf(document), tried)
	return r, func(w io.Writer) { printRevisions(w, []ctlapi.Revision{r}) }, err
}

// await follows the newest revision of a document, which is later than another, to its end;
// another end than in force has an exit code of its own.
func await(ctx context.Context, revisions func(context.Context) ([]ctlapi.Revision, error), digest string, after int) (ctlapi.Revision, error) {
	tick, late := time.NewTicker(50*time.Millisecond), time.NewTimer(commandTimeout)
	defer tick.Stop()
	defer late.Stop()
	waiting := codedError{exitWaiting, errors.New("the document is kept, but not everyone has acknowledged it yet: see tracegate ctl status, or ctl settings")}
	for {
		all, err := revisions(ctx)
		if ctx.Err() != nil {
			return ctlapi.Revision{}, waiting
		}
		if err != nil {
			return ctlapi.Revision{}, err
		}
		if len(all) > 0 && all[0].Digest == digest && all[0].Number > after {
			switch all[0].State {
			case ctlapi.RevisionInForce:
				return all[0], nil
			case ctlapi.RevisionPartly:
				return all[0], codedError{exitWaiting, errors.New("in force, but not all of it: " + all[0].Why)}
			case ctlapi.RevisionRefused:
				return all[0], codedError{exitRefused, errors.New("the document before goes on: " + all[0].Why)}
			case ctlapi.RevisionRolledBack:
				return all[0], codedError{exitRolledBack, errors.New("the document before goes on: " + all[0].Why)}
			case ctlapi.RevisionTrial:
				late.Reset(commandTimeout)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctlapi.Revision{}, waiting
		case <-late.C:
			return ctlapi.Revision{}, waiting
		}
	}
}

func (c *control) rollback(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
	all, err := client.Revisions(ctx)
	if err != nil {
		return nil, nil, err
	}
	number, err := earlier(all, args)
	if err != nil {
		return nil, nil, err
	}
	d, err := client.Revision(ctx, number)
	if err != nil {
		return nil, nil, err
	}
	return c.put(ctx, client, []byte(d.Document), fmt.Sprintf("back to revision %d", number))
}

// earlier is the revision that is named, or the one that was in force before.
func earlier(all []ctlapi.Revision, args []string) (int, error) {
	if len(args) == 1 {
		number, err := strconv.Atoi(args[0])
		if err != nil {
			return 0, fmt.Errorf("revision %q is not a number", args[0])
		}
		return number, nil
	}
	if number := before(all); number > 0 {
		return number, nil
	}
	return 0, errors.New("no earlier document was in force, as far as the history goes back")
}

// before is the revision that was in force last, before the one that is.
func before(newestFirst []ctlapi.Revision) int {
	current := ""
	for _, r := range newestFirst {
		if r.State == ctlapi.RevisionInForce || r.State == ctlapi.RevisionPartly {
			current = r.Digest
		}
	}
	best := ctlapi.Revision{}
	for _, r := range newestFirst {
		if r.Digest != current && r.Since.After(best.Since) {
			best = r
		}
	}
	return best.Number
}

func (c *control) diff(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
	now, err := client.Policy(ctx)
	if err != nil {
		return nil, nil, err
	}
	name, next, err := documentOf(ctx, client, args[0])
	if err != nil {
		return nil, nil, err
	}
	check, err := client.CheckPolicy(ctx, next)
	if err == nil && len(check.Problems) > 0 {
		err = exitError(exitRefused)
	}
	return check, func(w io.Writer) {
		fmt.Fprintf(w, "%s", diff.Diff("in force", []byte(now.Document), name, next))
		printCheck(w, name, check)
	}, err
}

// documentOf reads a file, or a revision where the argument is its number and no file.
func documentOf(ctx context.Context, client *ctlapi.Client, arg string) (name string, _ []byte, _ error) {
	document, err := os.ReadFile(arg)
	if number, bad := strconv.Atoi(arg); err != nil && bad == nil {
		d, err := client.Revision(ctx, number)
		return "revision " + arg, []byte(d.Document), err
	}
	return arg, document, err
}

func printCheck(w io.Writer, name string, check ctlapi.Check) {
	for _, p := range check.Problems {
		fmt.Fprintln(w, p.In(name))
	}
	if len(check.Problems) > 0 {
		return
	}
	if len(check.Changes) == 0 {
		fmt.Fprintln(w, "nothing changes at the edge")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "AT THE EDGE\tNAME\tIS")
	for _, ch := range check.Changes {
		fmt.Fprintf(t, "%s\t%s\t%s\n", ch.Type, ch.Name, ch.What)
	}
}

func (c *control) routes(ctx context.Context, client *ctlapi.Client, _ []string) (any, func(io.Writer), error) {
	all, err := client.Routes(ctx)
	return all, func(w io.Writer) { printRouting(w, all) }, err
}

func printRouting(w io.Writer, all []ctlapi.Route) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	every := func(words []string) string { return cmp.Or(strings.Join(words, ","), "*") }
	fmt.Fprintln(t, "SERVICE\tRULE\tHOST\tMETHOD\tPATH\tPOOLS\tUNTIL\tIF")
	for _, r := range all {
		rule, until := "-", "-"
		if r.Rule {
			rule = r.Name
		}
		if !r.Until.IsZero() {
			until = r.Until.Local().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Service, rule, every(r.Hosts), every(r.Methods), cmp.Or(r.Path, "*"), poolWords(r), until,
			cmp.Or(strings.Join(r.Conditions, ", "), "-"))
	}
}

// poolWords says which pools serve, or what the edge answers.
func poolWords(r ctlapi.Route) string {
	var words string
	switch r.By {
	case ctlapi.ByEdge:
		return "answers " + r.Answer
	case ctlapi.ByGroup:
		words = "by group"
	default:
		var pools []string
		for _, p := range r.Pools {
			pools = append(pools, fmt.Sprintf("%s %v%%", p.Pool, p.Percent))
		}
		words = strings.Join(pools, ", ")
	}
	if r.To != "" {
		words = r.To + ": " + words
	}
	return words
}

func (c *control) history(ctx context.Context, client *ctlapi.Client, _ []string) (any, func(io.Writer), error) {
	all, err := client.Revisions(ctx)
	return all, func(w io.Writer) { printRevisions(w, all) }, err
}

func printRevisions(w io.Writer, all []ctlapi.Revision) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "REVISION\tTIME\tBY\tSTATE\tREASON")
	for _, r := range all {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", r.Number, r.Time.Local().Format(time.DateTime), r.By, r.State, r.Reason)
		if r.Why != "" {
			fmt.Fprintf(t, "\t\t\t\t%s\n", r.Why)
		}
	}
}

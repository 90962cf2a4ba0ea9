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
	"github.com/tracegate/tracegate/core"
	"github.com/tracegate/tracegate/mesh/settings"
	"github.com/tracegate/tracegate/observability/semconv"
)

// liveSettings check the settings documents of our services.
func liveSettings() map[string]func(document []byte) error {
	return map[string]func([]byte) error{semconv.ServiceCore: core.CheckSettings}
}

// settingsCommand is about what services take while they run; see docs/configuration.md.
func (c *control) settingsCommand() *cobra.Command {
	cmd := c.command("settings", "settings of services that change while they run: every document, and who has it", cobra.NoArgs, c.settings)
	var reason string
	put := c.command("put KEY FILE", "hand a settings document to the instances that KEY names: core, core/gray/env=staging, core/version/v2", cobra.ExactArgs(2),
		func(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
			document, err := os.ReadFile(args[1])
			if err != nil {
				return nil, nil, err
			}
			if err := checkSettings(args[0], document); err != nil {
				return nil, nil, codedError{exitRefused, fmt.Errorf("%s: %w", args[1], err)}
			}
			return putSettings(ctx, client, args[0], document, reason)
		})
	remove := c.command("remove KEY", "take a settings document away: the next wider one counts, or what the service started with", cobra.ExactArgs(1),
		func(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
			return putSettings(ctx, client, args[0], nil, reason)
		})
	for _, sub := range []*cobra.Command{put, remove} {
		sub.Flags().StringVar(&reason, "reason", "", "why, for the history")
	}
	cmd.AddCommand(put, remove,
		c.command("history KEY", "the settings documents of the past, who brought them and what became of them", cobra.ExactArgs(1), c.settingsHistory),
		c.command("show KEY [REVISION]", "a settings document: the one that instances are handed, or the revision that is named", cobra.RangeArgs(1, 2), c.showSettings),
		c.command("diff KEY FILE|REVISION", "what another document would change", cobra.ExactArgs(2), c.diffSettings),
		c.command("rollback KEY [REVISION]", "hand out an earlier settings document again: the one before, or the one that is named", cobra.RangeArgs(1, 2), c.rollbackSettings),
	)
	return cmd
}

func checkSettings(key string, document []byte) error {
	service, ok := settings.ServiceOf(key)
	if !ok {
		return fmt.Errorf("%q is none of SERVICE, SERVICE/gray/KEY=VALUE, SERVICE/version/VERSION", key)
	}
	if check := liveSettings()[service]; check != nil {
		return check(document)
	}
	return nil
}

// putSettings returns when the document is in force at every instance that is connected
// and that it is for, or was refused.
func putSettings(ctx context.Context, client *ctlapi.Client, key string, document []byte, reason string) (any, func(io.Writer), error) {
	tried := 0 // a revision of the same document whose end was another one's
	if past, err := client.SettingsRevisions(ctx, key); err == nil && len(past) > 0 && (past[0].State == ctlapi.RevisionRolledBack || past[0].State == ctlapi.RevisionRefused) {
		tried = past[0].Number
	}
	if err := client.PutSettings(ctx, key, document, operator(), reason); err != nil {
		return nil, nil, err
	}
	revisions := func(ctx context.Context) ([]ctlapi.Revision, error) { return client.SettingsRevisions(ctx, key) }
	r, err := await(ctx, revisions, ctlapi.DigestOf(document), tried)
	return r, func(w io.Writer) { printRevisions(w, []ctlapi.Revision{r}) }, err
}

func (c *control) settings(ctx context.Context, client *ctlapi.Client, _ []string) (any, func(io.Writer), error) {
	s, err := client.Settings(ctx)
	return s, func(w io.Writer) { printSettings(w, s) }, err
}

func printSettings(w io.Writer, s ctlapi.Settings) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "DOCUMENT\tNEWEST\tSTATE\tHANDED OUT\tTIME\tBY\tREASON")
	for _, d := range s.Documents {
		r := d.Newest
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", d.Key, r.Number, r.State, revisionName(d.Handed), r.Time.Local().Format(time.DateTime), r.By, r.Reason)
		if r.Why != "" {
			fmt.Fprintf(t, "\t\t\t\t\t\t%s\n", r.Why)
		}
	}
	fmt.Fprintln(t, "\nINSTANCE\tHAS\tSINCE\tVERSION\tLABELS")
	for _, i := range s.Instances {
		has := "nothing yet"
		switch {
		case i.Refused != "":
			has = fmt.Sprintf("refused %s %d: %s", i.Key, i.Revision, i.Refused)
		case i.Answered && i.Key == "":
			has = "what it started with"
		case i.Answered:
			has = fmt.Sprintf("%s %d", i.Key, i.Revision)
		}
		fmt.Fprintf(t, "%s %s\t%s\t%s\t%s\t%s\n", i.Service, i.Node, has, i.Since.Local().Format(time.DateTime), cmp.Or(i.Version, "-"), strings.Join(i.Labels, " "))
	}
}

func revisionName(n int) string {
	if n == 0 {
		return "none"
	}
	return strconv.Itoa(n)
}

func (c *control) settingsHistory(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
	all, err := client.SettingsRevisions(ctx, args[0])
	return all, func(w io.Writer) { printRevisions(w, all) }, err
}

func (c *control) showSettings(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
	d, err := settingsOf(ctx, client, args[0], args[1:])
	return d, func(w io.Writer) { io.WriteString(w, d.Document) }, err
}

// settingsOf is the revision that is named, or the one that instances are handed.
func settingsOf(ctx context.Context, client *ctlapi.Client, key string, revision []string) (ctlapi.Document, error) {
	if len(revision) == 1 {
		number, err := strconv.Atoi(revision[0])
		if err != nil {
			return ctlapi.Document{}, fmt.Errorf("revision %q is not a number", revision[0])
		}
		return client.SettingsRevision(ctx, key, number)
	}
	all, err := client.Settings(ctx)
	if err != nil {
		return ctlapi.Document{}, err
	}
	for _, d := range all.Documents {
		if d.Key == key && d.Handed > 0 {
			return client.SettingsRevision(ctx, key, d.Handed)
		}
	}
	return ctlapi.Document{}, errors.New(key + ": no document of it is handed out")
}

func (c *control) diffSettings(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
	key, arg := args[0], args[1]
	now, err := settingsOf(ctx, client, key, nil)
	if err != nil {
		return nil, nil, err
	}
	name, next := arg, []byte(nil)
	if next, err = os.ReadFile(arg); err != nil {
		d, bad := settingsOf(ctx, client, key, []string{arg})
		if bad != nil {
			return nil, nil, errors.Join(err, bad)
		}
		name, next = "revision "+arg, []byte(d.Document)
	}
	out := map[string]string{"diff": string(diff.Diff("handed out", []byte(now.Document), name, next))}
	if err := checkSettings(key, next); err != nil {
		out["refused"] = err.Error()
		return out, func(w io.Writer) { fmt.Fprintf(w, "%s%s would be refused: %s\n", out["diff"], name, out["refused"]) }, exitError(exitRefused)
	}
	return out, func(w io.Writer) { io.WriteString(w, out["diff"]) }, nil
}

func (c *control) rollbackSettings(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
	all, err := client.SettingsRevisions(ctx, args[0])
	if err != nil {
		return nil, nil, err
	}
	number, err := earlier(all, args[1:])
	if err != nil {
		return nil, nil, err
	}
	d, err := client.SettingsRevision(ctx, args[0], number)
	if err != nil {
		return nil, nil, err
	}
	return putSettings(ctx, client, args[0], []byte(d.Document), fmt.Sprintf("back to revision %d", number))
}

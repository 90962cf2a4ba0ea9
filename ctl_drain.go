package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
)

// drainCommand takes an instance out of rotation, or puts it back.
func (c *control) drainCommand() *cobra.Command {
	var o ctlapi.DrainOrder
	var lasts time.Duration
	var undo bool
	cmd := c.command("drain SERVICE/POOL INSTANCE", "take an instance out of rotation: no edge sends it new requests, what is open on it goes on", cobra.ExactArgs(2),
		func(ctx context.Context, client *ctlapi.Client, args []string) (any, func(io.Writer), error) {
			service, pool, ok := strings.Cut(args[0], "/")
			if !ok {
				return nil, nil, fmt.Errorf("%q is not SERVICE/POOL", args[0])
			}
			o.Service, o.Pool, o.Instance, o.By, o.ForMS = service, pool, args[1], operator(), lasts.Milliseconds()
			order, said := client.Drain, "drains"
			if undo {
				order, said = client.Undrain, "serves again"
			}
			d, err := order(ctx, o)
			return d, func(w io.Writer) { fmt.Fprintf(w, "%s/%s %s %s\n", d.Service, d.Pool, d.Instance, said) }, err
		})
	cmd.Flags().DurationVar(&lasts, "for", 0, "how long, a week at most (0: until --undo)")
	cmd.Flags().BoolVar(&undo, "undo", false, "put it back into rotation")
	cmd.Flags().BoolVar(&o.Force, "force", false, "although no other instance of the pool would serve")
	cmd.Flags().StringVar(&o.Reason, "reason", "by hand", "why, for the record")
	cmd.MarkFlagsMutuallyExclusive("undo", "for")
	cmd.MarkFlagsMutuallyExclusive("undo", "force")
	return cmd
}

func (c *control) endpoints(ctx context.Context, client *ctlapi.Client, _ []string) (any, func(io.Writer), error) {
	all, err := client.Endpoints(ctx)
	return all, func(w io.Writer) { printEndpoints(w, all) }, err
}

func printEndpoints(w io.Writer, all []ctlapi.Endpoint) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "POOL\tINSTANCE\tZONE\tSTATE")
	for _, e := range all {
		fmt.Fprintf(t, "%s/%s\t%s\t%s\t%s\n", e.Service, e.Pool, e.Instance, cmp.Or(e.Zone, "-"), e.State)
	}
}

// drainWords says who has an instance drain, until when and why.
func drainWords(d ctlapi.Drain) string {
	until := "until it is undone"
	if !d.Until.IsZero() {
		until = "until " + d.Until.Local().Format(time.DateTime)
	}
	if !d.Gone.IsZero() {
		until += ", not there since " + d.Gone.Local().Format(time.TimeOnly)
	}
	return fmt.Sprintf("%s, by %s since %s: %s", until, d.By, d.Since.Local().Format(time.DateTime), d.Reason)
}

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

// auditCommand shows who asked the control plane to change what.
func (c *control) auditCommand() *cobra.Command {
	var since time.Duration
	q := ctlapi.AuditQuery{Limit: 50}
	cmd := c.command("audit", "who asked the control plane to change what, also what was refused", cobra.NoArgs,
		func(ctx context.Context, client *ctlapi.Client, _ []string) (any, func(io.Writer), error) {
			q.Since = ago(since)
			all, err := client.Audit(ctx, q)
			return all, func(w io.Writer) { printAudit(w, all) }, err
		})
	cmd.Flags().DurationVar(&since, "since", 0, "how far back to look (0: as far as the control plane remembers)")
	cmd.Flags().StringVar(&q.Who, "who", "", "only requests with the token of this name, or of whoever calls themselves so")
	cmd.Flags().IntVar(&q.Limit, "limit", q.Limit, "how many at most, the newest")
	return cmd
}

func printAudit(w io.Writer, all []ctlapi.AuditRecord) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "TIME\tWHO\tROLE\tFROM\tACTION\tTARGET\tOUTCOME\tREASON")
	for _, r := range all {
		who := r.Who
		if r.By != "" && r.By != r.Who {
			who += ":" + r.By
		}
		made := cmp.Or(r.Outcome, "not known")
		if r.Made != "" {
			made += " " + r.Made
		}
		target := cmp.Or(r.Target, "-")
		if r.Digest != "" {
			target = strings.TrimPrefix(target+" "+r.Digest, "- ")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Time.Local().Format(time.DateTime), who, r.Role, r.Remote, r.Action, target, made, cmp.Or(r.Reason, "-"))
	}
}

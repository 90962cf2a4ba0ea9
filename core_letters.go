package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/queue"
)

// deadTime bounds reading the dead-letter topic, and replaying of it.
const deadTime = time.Minute

// deadCommand is what operators do about records that could not be stored.
func deadCommand(opts *options) *cobra.Command {
	var reason, format string
	cmd := &cobra.Command{
		Use: "dead", Short: "list accepted records that could not be stored, with the reason", Args: cobra.NoArgs,
		Long: "Lists the dead-letter topic. An accepted record ends there when what stands before it in the log forbids it by then (its sender\n" +
			"was removed, its message recalled), or when it cannot be read at all.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withLetters(cmd.Context(), opts, reason, func(_ context.Context, _ queue.Config, letters []queue.Letter) error {
				return writeLetters(cmd.OutOrStdout(), format, letters)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json, which has the records themselves")
	cmd.PersistentFlags().StringVar(&reason, "reason", "", "only those with this reason")
	replay := &cobra.Command{
		Use: "replay [ID...]", Short: "put dead letters into the log again, where their reason is gone; --reason R takes all of them that were not replayed yet",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if (len(ids) > 0) == (reason != "") {
				return errors.New("name letters by id, or all with --reason")
			}
			return withLetters(cmd.Context(), opts, reason, func(ctx context.Context, cfg queue.Config, letters []queue.Letter) error {
				for _, l := range letters {
					if reason != "" && l.Replayed == nil {
						ids = append(ids, l.ID)
					}
				}
				if err := queue.Replay(ctx, cfg, ids...); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d records are in the log again; those that still cannot be stored become new letters\n", len(ids))
				return nil
			})
		},
	}
	cmd.AddCommand(replay)
	return cmd
}

func withLetters(ctx context.Context, opts *options, reason string, do func(context.Context, queue.Config, []queue.Letter) error) error {
	product, err := opts.load()
	if err != nil {
		return err
	}
	cfg := product.queueConfig()
	ctx, cancel := context.WithTimeout(ctx, deadTime)
	defer cancel()
	letters, err := queue.Letters(ctx, cfg)
	if err != nil {
		return err
	}
	var chosen []queue.Letter
	for _, l := range letters {
		if reason == "" || l.Reason == chat.Reason(reason) {
			chosen = append(chosen, l)
		}
	}
	return do(ctx, cfg, chosen)
}

func writeLetters(out io.Writer, format string, letters []queue.Letter) error {
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(letters)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTIME\tREASON\tCONVERSATION\tFROM\tREPLAYED\tDETAIL")
	for _, l := range letters {
		replayed := "-"
		if l.Replayed != nil {
			replayed = l.Replayed.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.ID, l.Time.UTC().Format(time.RFC3339), l.Reason, l.Conversation, l.From, replayed, l.Detail)
	}
	return w.Flush()
}

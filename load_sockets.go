package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/edge/load"
	"github.com/tracegate/tracegate/edge/load/sockets"
)

func socketsCommand(opts *options, lab *load.Config) *cobra.Command {
	o, through := sockets.DefaultConfig(), "core"
	var cmd *cobra.Command
	cmd = loadSubcommand(opts, lab, "sockets", "open many connections, ping them, and say what one costs",
		func(ctx context.Context, product Config, cfg load.Config, out io.Writer, log *slog.Logger) (bool, error) {
			o.Cores, o.Token, o.Format = cfg.Cores, cfg.Token, cfg.Format
			if cmd.Flags().Changed("duration") {
				o.Duration = cfg.Duration
			}
			o.Door = "http://" + product.Core.Pools[0].Listen
			if through == "edge" {
				o.Door = cfg.Edge
			}
			r, err := sockets.Run(ctx, o, out, log)
			return r.OK, err
		})
	cmd.PreRunE = func(*cobra.Command, []string) error { // before a product is started for it
		if through != "core" && through != "edge" {
			return fmt.Errorf("through: %q is neither core nor edge", through)
		}
		return nil
	}
	cmd.Long = "Opens connections from several loopback addresses, each logged in and resumed in a conversation, and measures what one adds to core's\n" +
		"memory after a collection, idle and after --duration of pings, with collections, CPU time and how late pongs are. A process that may\n" +
		"open 20,000 files (ulimit -Hn) holds some 19,000 connections; start several for more. Users are registered first, some ten a second."
	flags := cmd.Flags()
	flags.IntVar(&o.Connections, "connections", o.Connections, "how many")
	flags.IntVar(&o.PerUser, "per-user", o.PerUser, "connections of one user; core allows 16 a process")
	flags.IntVar(&o.Sources, "sources", o.Sources, "loopback addresses they come from, 127.0.0.1 and on")
	flags.Float64Var(&o.Pings, "pings", o.Pings, "WebSocket pings a second over all connections")
	flags.StringVar(&through, "through", through, "core: straight to the first pool's process; edge: by Envoy")
	flags.Float64Var(&o.MaxKB, "max-kb", o.MaxKB, "a connection may cost; judged from 1,000 connections on; 0: not judged")
	return cmd
}

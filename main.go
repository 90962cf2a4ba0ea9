// Command tracegate is the whole product in one binary: each subcommand runs one
// folder's part, and `up` runs them all on this machine.
//
// The root package only reads the configuration and joins the folders: an adapter
// never imports another folder's adapter, so what one needs of another is handed
// over here (parts.go).
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/mesh/local"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv(local.Supervised) != "" {
		ctx = endWithInput(ctx, os.Stdin)
	}
	err := newCommand(os.Stdout, os.Stderr).ExecuteContext(ctx)
	var code exitError
	switch {
	case err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		fmt.Fprintln(os.Stderr, "tracegate:", err)
		os.Exit(exitCode(err))
	}
}

// exitError ends the process with a code of its own after the command has said all
// there is to say.
type exitError int

func (c exitError) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Exit codes of what scripts may want to tell from a mere failure, which is 1; 2 is what
// the load lab ends with. README.md lists them.
const (
	exitRefused    = 3
	exitWaiting    = 4
	exitRolledBack = 5
)

// codedError is an error with an exit code of its own.
type codedError struct {
	code int
	error
}

func (e codedError) Unwrap() error { return e.error }

func exitCode(err error) int {
	if e, ok := errors.AsType[codedError](err); ok {
		return e.code
	}
	return 1
}

// endWithInput returns a context that ends when r does: a part follows the
// supervisor that holds the other end of its standard input.
func endWithInput(ctx context.Context, r io.Reader) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, r)
		cancel()
	}()
	return ctx
}

// options are the flags every command has.
type options struct {
	config string
	data   string
	set    map[string]string
}

func (o *options) load() (Config, error) {
	flags := map[string]string{}
	for k, v := range o.set {
		flags[k] = v
	}
	if o.data != "" {
		flags["data"] = o.data
	}
	return loadConfig(o.config, flags)
}

func newCommand(out, errOut io.Writer) *cobra.Command {
	opts := &options{}
	root := &cobra.Command{
		Use:           "tracegate",
		Short:         "Release, isolate and scale realtime software by traffic group",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(out)
	root.SetErr(errOut)
	root.PersistentFlags().StringVar(&opts.config, "config", "", "configuration file (tracegate.example.yaml documents every key)")
	root.PersistentFlags().StringVar(&opts.data, "data", "", "folder for everything that is kept (default .tracegate)")
	root.PersistentFlags().StringToStringVar(&opts.set, "set", nil, "set one configuration key, e.g. --set edge.listen=127.0.0.1:9000")
	root.AddCommand(
		upCommand(opts),
		partCommand(opts, "edge", "run Envoy, programmed by the control plane", runEdge),
		partCommand(opts, "controlplane", "decide, and program the edges by xDS", runControlPlane),
		partCommand(opts, partRateLimit, "count for limits that edges share (Envoy's rate limit protocol, in Redis)", runRateLimit),
		coreCommand(opts),
		searchCommand(opts),
		partCommand(opts, "observe", "receive telemetry, serve the console", runObserve),
		clickHouseCommand(opts),
		probeCommand(opts),
		loadCommand(opts),
		embeddedCommand(opts),
		partCommand(opts, "operator", "keep a Kubernetes cluster as its MicroServices and TrafficGroups say", runOperator),
		ctlCommand(opts),
		configCommand(opts),
		identityCommand(opts),
	)
	return root
}

// partCommand is a subcommand that runs one part until it is told to stop.
func partCommand(opts *options, name, short string, run func(context.Context, Config, *slog.Logger) error) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := opts.load()
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg, newLogger(cmd.ErrOrStderr(), cfg.Log, name))
		},
	}
}

func coreCommand(opts *options) *cobra.Command {
	var pool, listen, admin string
	cmd := partCommand(opts, "core", "run one core process: messaging for one pool", func(ctx context.Context, cfg Config, log *slog.Logger) error {
		for i, p := range cfg.Core.Pools {
			if p.Name == pool {
				cfg.Core.Pools[i].Listen, cfg.Core.Pools[i].Admin = cmp.Or(listen, p.Listen), cmp.Or(admin, p.Admin)
			}
		}
		if err := cfg.checkPools(); err != nil {
			return err
		}
		if err := fixStacks(); err != nil {
			log.Warn("connections will cost some 2 KB more", "error", err)
		}
		return runCore(ctx, cfg, pool, log.With("pool", pool))
	})
	cmd.Flags().StringVar(&pool, "pool", "baseline", "pool this process serves, one of core.pools")
	cmd.Flags().StringVar(&listen, "listen", "", "address instead of the pool's, for one more process of it")
	cmd.Flags().StringVar(&admin, "admin", "", "admin address instead of the pool's")
	cmd.AddCommand(deadCommand(opts))
	return cmd
}

func searchCommand(opts *options) *cobra.Command {
	var anew bool
	cmd := partCommand(opts, partSearch, "run a search process: the index of messages", func(ctx context.Context, cfg Config, log *slog.Logger) error {
		return runSearch(ctx, cfg, anew, log)
	})
	cmd.Flags().BoolVar(&anew, "reindex", false, "make the index anew from the database first; end the process that has it before")
	return cmd
}

func clickHouseCommand(opts *options) *cobra.Command {
	cmd := partCommand(opts, "clickhouse", "run the embedded ClickHouse engine", runClickHouse)
	cmd.AddCommand(&cobra.Command{
		Use: "downgrade VERSION", Short: "take the trace store back to an older schema, for an older program; run nothing else that uses it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			version, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil {
				return fmt.Errorf("version: %q is not a number", args[0])
			}
			cfg, err := opts.load()
			if err != nil {
				return err
			}
			traces, err := openStore(cfg)
			if err != nil {
				return err
			}
			return errors.Join(traces.Downgrade(cmd.Context(), uint32(version)), traces.Close())
		},
	})
	return cmd
}

func configCommand(opts *options) *cobra.Command {
	return &cobra.Command{
		Use: "config", Short: "print the configuration in force, every key documented", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := opts.load()
			if err != nil {
				return err
			}
			printConfig(cmd.OutOrStdout(), cfg)
			return nil
		},
	}
}

// newLogger writes to w; part names the process in every line.
func newLogger(w io.Writer, cfg LogConfig, part string) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // checked by Config.validate
	o := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)).With("part", part)
	}
	return slog.New(slog.NewTextHandler(w, o)).With("part", part)
}

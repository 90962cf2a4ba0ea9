package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/edge/load"
	"github.com/tracegate/tracegate/mesh/local"
)

func loadCommand(opts *options) *cobra.Command {
	cfg := load.DefaultConfig()
	cmd := &cobra.Command{
		Use: "load", Short: "press a running tracegate with real clients, and check its promises",
		Long: "Presses the tracegate that runs with the same --config and --data; where none runs, one is started in a\n" +
			"temporary folder for the time of the run. The exit code is 2 where a promise was broken.",
	}
	flags := cmd.PersistentFlags()
	flags.DurationVar(&cfg.Duration, "duration", cfg.Duration, "how long to press")
	flags.Float64Var(&cfg.Rate, "rate", cfg.Rate, "requests per second and group")
	flags.IntVar(&cfg.Users, "users", cfg.Users, "people per group, in pairs")
	flags.StringVarP(&cfg.Format, "output", "o", cfg.Format, "text or json")

	circle := loadSubcommand(opts, &cfg, "circle", "follow a fault round the circle: detected, isolated, released",
		func(ctx context.Context, _ Config, cfg load.Config, out io.Writer, log *slog.Logger) (bool, error) {
			r, err := load.Circle(ctx, cfg, out, log)
			return r.OK, err
		})
	circle.Flags().DurationVar(&cfg.FaultLatency, "fault-latency", cfg.FaultLatency, "latency that the fault adds")
	circle.Flags().Float64Var(&cfg.FaultErrors, "fault-errors", cfg.FaultErrors, "share of requests that the fault fails")
	circle.Flags().BoolVar(&cfg.FaultConnect, "fault-connect", false, "instead, a dependency of the pool is slow to accept connections")

	var n int
	changes := loadSubcommand(opts, &cfg, "changes", "change policy and placement many times under load",
		func(ctx context.Context, product Config, cfg load.Config, out io.Writer, log *slog.Logger) (bool, error) {
			policy, err := os.ReadFile(product.policyFile())
			if err != nil {
				return false, err
			}
			r, err := load.Changes(ctx, cfg, n, policy, out, log)
			return r.OK, err
		})
	changes.Flags().IntVar(&n, "changes", 1000, "how many changes")

	faults := loadSubcommand(opts, &cfg, "faults", "kill the control plane, ClickHouse and a core process in turn under load",
		func(ctx context.Context, product Config, cfg load.Config, out io.Writer, log *slog.Logger) (bool, error) {
			r, err := load.Faults(ctx, cfg, killable(product), out, log)
			return r.OK, err
		})
	cmd.AddCommand(circle, changes, faults)
	return cmd
}

type labFunc func(ctx context.Context, product Config, cfg load.Config, out io.Writer, log *slog.Logger) (ok bool, err error)

func loadSubcommand(opts *options, lab *load.Config, use, short string, do labFunc) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			product, err := opts.load()
			if err != nil {
				return err
			}
			log := newLogger(cmd.ErrOrStderr(), product.Log, "load")
			var ok bool
			err = withProduct(cmd.Context(), opts, product, cmd.ErrOrStderr(), log, func(ctx context.Context, product Config) error {
				cfg, err := labConfig(*lab, product)
				if err != nil {
					return err
				}
				ok, err = do(ctx, product, cfg, cmd.OutOrStdout(), log)
				return err
			})
			if err == nil && !ok {
				return exitError(2)
			}
			return err
		},
	}
}

// labConfig points the lab at a product.
func labConfig(cfg load.Config, product Config) (load.Config, error) {
	token, err := readSecret(product.secrets(), secretControl)
	if err != nil {
		return cfg, err
	}
	cfg.Token = token
	cfg.Edge = "http://" + product.Edge.Listen
	cfg.EdgeAdmin = "http://" + product.Edge.Admin
	cfg.Control = "http://" + product.ControlPlane.API
	cfg.Cores = map[string]string{}
	for _, p := range product.Core.Pools {
		cfg.Cores[p.Name] = "http://" + p.Admin
	}
	return cfg, nil
}

// withProduct calls do with the product that runs with this configuration, or with
// one that it starts in a temporary folder and stops afterwards.
func withProduct(ctx context.Context, opts *options, product Config, errOut io.Writer, log *slog.Logger, do func(context.Context, Config) error) error {
	if running(product) {
		return do(ctx, product)
	}
	dir, err := os.MkdirTemp("", "tracegate-load-")
	if err != nil {
		return fmt.Errorf("make a temporary data folder: %w", err)
	}
	defer os.RemoveAll(dir)
	log.Info("no tracegate runs with this data folder; starting one for this run", "data", dir)
	product.Data = dir
	logs, err := os.Create(filepath.Join(dir, "up.log"))
	if err != nil {
		return err
	}
	defer logs.Close()
	err = newUp(product, opts, io.Discard, logs).runWith(ctx, func(ctx context.Context) error {
		return do(ctx, product)
	})
	if err != nil {
		tail(errOut, logs.Name())
	}
	return err
}

// running says whether the supervisor of this data folder is alive.
func running(cfg Config) bool {
	s, err := local.ReadStatus(cfg.statusFile())
	return err == nil && syscall.Kill(s.Supervisor, 0) == nil
}

// tail shows the end of a log that explains why a product did not start.
func tail(w io.Writer, file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return
	}
	const last = 4 << 10
	if len(raw) > last {
		raw = raw[len(raw)-last:]
	}
	_, _ = w.Write(raw)
}

// killable are the parts that `load faults` kills, found by the supervisor's status.
func killable(product Config) []load.Part {
	parts := []load.Part{killablePart(product, partControlPlane, true)}
	if product.ClickHouse.Embedded {
		parts = append(parts, killablePart(product, partClickHouse, true))
	}
	return append(parts, killablePart(product, corePart("baseline"), false))
}

func killablePart(product Config, name string, harmless bool) load.Part {
	var killed int // the process id that was killed
	status := func() (local.PartStatus, error) {
		s, err := local.ReadStatus(product.statusFile())
		if err != nil {
			return local.PartStatus{}, err
		}
		p, ok := s.Part(name)
		if !ok {
			return p, fmt.Errorf("no part %s in %s", name, product.statusFile())
		}
		return p, nil
	}
	return load.Part{
		Name: name, Harmless: harmless,
		Kill: func(context.Context) error {
			p, err := status()
			if err != nil {
				return err
			}
			if p.PID == 0 {
				return errors.New("it does not run")
			}
			killed = p.PID
			return syscall.Kill(p.PID, syscall.SIGKILL)
		},
		Healed: func(context.Context) (bool, error) {
			p, err := status()
			return err == nil && p.State == local.Running && p.PID != killed, err
		},
	}
}

// runWith runs the product, calls do once the circle is closed, and stops it.
func (u *up) runWith(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var result error
	u.ready = func(ctx context.Context) error {
		result = do(ctx)
		cancel()
		return nil
	}
	if err := u.run(ctx); err != nil {
		return err
	}
	return result
}

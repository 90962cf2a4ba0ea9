package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/edge/load"
	"github.com/tracegate/tracegate/mesh/local"
	"github.com/tracegate/tracegate/observability/ingest"
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
	flags.Float64Var(&cfg.Rate, "rate", cfg.Rate, "requests per second and group; changes takes 667 where this is not given")
	flags.IntVar(&cfg.Users, "users", cfg.Users, "people per group, in pairs; changes takes 168 where this is not given")
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
			if product.Edge.TLS.Listen != "" {
				cfg.Renew = func(int) error { return renewFirstCertificate(product, time.Now()) }
			}
			r, err := load.Changes(ctx, cfg, n, policy, out, log)
			return r.OK, err
		})
	changes.Flags().IntVar(&n, "changes", 1000, "how many changes")
	changes.Flags().DurationVar(&cfg.Every, "every", cfg.Every, "the least time from one change to the next; 0: each when every edge has the one before")
	changes.Long = "Makes changes while three groups ask for 2,000 requests a second, one of forty of them a message, and hold 504 WebSockets open\n" +
		"(--rate, --users); --every leaves time between changes. What the machine does not carry is not started, and the report says what\n" +
		"was reached. Whether the machine is quick enough is not asked: for the run the policy is in mode observe. Certificates are\n" +
		"renewed too where edge.tls.listen is set, as it is in a tracegate of its own."
	changes.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed("rate") {
			cfg.Rate = 667
		}
		if !cmd.Flags().Changed("users") {
			cfg.Users = 168
		}
		product, err := opts.load()
		if err == nil && !running(product) {
			opts.encrypt()
		}
		return err
	}

	var away time.Duration
	faults := loadSubcommand(opts, &cfg, "faults", "kill the control plane, ClickHouse and a core process in turn under load",
		func(ctx context.Context, product Config, cfg load.Config, out io.Writer, log *slog.Logger) (bool, error) {
			cfg.Limits.Heal += away
			r, err := load.Faults(ctx, cfg, killable(product, away), out, log)
			return r.OK, err
		})
	faults.Flags().DurationVar(&away, "clickhouse-away", 0, "how long ClickHouse is killed again whenever it comes back")
	var only []string
	decisions := loadSubcommand(opts, &cfg, "decisions", "play ten faults under load, and count wrong decisions",
		func(ctx context.Context, product Config, cfg load.Config, out io.Writer, log *slog.Logger) (bool, error) {
			policy, err := os.ReadFile(product.policyFile())
			if err != nil {
				return false, err
			}
			cfg.Kill = func(pool string) error { return signalPart(product, corePart(pool), syscall.SIGKILL) }
			cfg.Suspend = func() (func() error, error) {
				return func() error { return signalPart(product, partObserve, syscall.SIGCONT) }, signalPart(product, partObserve, syscall.SIGSTOP)
			}
			r, err := load.Decisions(ctx, cfg, only, policy, out, log)
			return r.OK, err
		})
	decisions.Flags().StringSliceVar(&only, "fault", nil, "play only these, by their names in the report")
	decisions.Flags().DurationVar(&cfg.Objective, "objective", cfg.Objective, "P95 that the policy of the run asks for; a machine that is slower without a fault needs a higher one")
	cmd.AddCommand(circle, changes, faults, decisions, chatCommand(opts, &cfg), socketsCommand(opts, &cfg))
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
// ClickHouse stays away for some time.
func killable(product Config, away time.Duration) []load.Part {
	parts := []load.Part{killablePart(product, partControlPlane, true, 0)}
	if product.ClickHouse.Embedded {
		clickhouse := killablePart(product, partClickHouse, true, away)
		clickhouse.Kept = func(ctx context.Context) (load.Kept, error) { return telemetryKept(ctx, product) }
		parts = append(parts, clickhouse)
	}
	return append(parts, killablePart(product, corePart("baseline"), false, 0))
}

// telemetryKept asks the receiver for its account.
func telemetryKept(ctx context.Context, product Config) (load.Kept, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+product.Observe.Admin+"/v1/ingest", nil)
	if err != nil {
		return load.Kept{}, err
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		return load.Kept{}, fmt.Errorf("ask for the account of telemetry: %w", err)
	}
	defer resp.Body.Close()
	var a ingest.Account
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return load.Kept{}, fmt.Errorf("read the account of telemetry: %w", err)
	}
	k := load.Kept{Received: a.Received + a.Recovered, Stored: a.Stored, Spooled: a.Spooled, Balanced: a.Balanced()}
	for _, n := range a.Dropped {
		k.Dropped += n
	}
	return k, nil
}

// signalPart sends a signal to the process of a part.
func signalPart(product Config, name string, s syscall.Signal) error {
	status, err := local.ReadStatus(product.statusFile())
	if err != nil {
		return err
	}
	p, ok := status.Part(name)
	if !ok || p.PID == 0 {
		return fmt.Errorf("part %s does not run", name)
	}
	return syscall.Kill(p.PID, s)
}

func killablePart(product Config, name string, harmless bool, away time.Duration) load.Part {
	var (
		killed int // the process id that was killed last
		first  time.Time
	)
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
			killed, first = p.PID, time.Now()
			return syscall.Kill(p.PID, syscall.SIGKILL)
		},
		Healed: func(context.Context) (bool, error) {
			p, err := status()
			if time.Since(first) < away {
				if err == nil && p.PID != 0 && p.PID != killed && syscall.Kill(p.PID, syscall.SIGKILL) == nil {
					killed = p.PID
				}
				return false, err
			}
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

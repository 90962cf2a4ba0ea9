package main

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	fanoutembedded "github.com/tracegate/tracegate/core/fanout/embedded"
	"github.com/tracegate/tracegate/core/queue"
	queueembedded "github.com/tracegate/tracegate/core/queue/embedded"
	"github.com/tracegate/tracegate/edge/load"
	"github.com/tracegate/tracegate/edge/load/chat"
	"github.com/tracegate/tracegate/edge/load/engines"
	"github.com/tracegate/tracegate/mesh/local"
	"github.com/tracegate/tracegate/mesh/tlsdial"
)

// chatOptions are the flags of `load chat`.
type chatOptions struct {
	faults  bool
	engines string
	press   chat.Config
	keep    string // folder of logs; empty: a temporary one
}

func chatCommand(opts *options, lab *load.Config) *cobra.Command {
	o := chatOptions{press: chat.DefaultConfig()}
	cmd := &cobra.Command{
		Use: "chat", Short: "check what is promised about messages, also while everything breaks", Args: cobra.NoArgs,
		Long: "Starts a circle of its own on loopback, whatever else runs, and asks for one promise after the other: order, exactly once to\n" +
			"the reader, resume, devices that converge, presence, close codes, groups, edits and recalls. With --faults, users chat for\n" +
			"--duration instead, while core processes, the edge and the engines are killed, frozen and cut off as --seed says. The exit code\n" +
			"is 2 where a promise was broken.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			product, err := opts.load()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("seed") {
				o.press.Seed = rand.Uint64N(1_000_000)
			}
			if cmd.Flags().Changed("duration") {
				o.press.Duration = lab.Duration
			}
			if cmd.Flags().Changed("rate") {
				o.press.Rate = lab.Rate
			}
			o.press.Pairs = lab.Users / 2
			log := newLogger(cmd.ErrOrStderr(), product.Log, "load")
			report, err := runChat(cmd.Context(), product, o, cmd.ErrOrStderr(), log)
			if err != nil {
				return err
			}
			if err := report.Write(cmd.OutOrStdout(), lab.Format); err != nil {
				return err
			}
			if !report.OK {
				return exitError(2)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.faults, "faults", false, "break things while users chat")
	flags.Uint64Var(&o.press.Seed, "seed", 0, "order of faults and of what users do; it is printed, and random where not given")
	flags.StringVar(&o.engines, "engines", "embedded", "embedded; real: Apache Kafka, a Redis Cluster of three masters, PostgreSQL; or valkey: the same with Valkey instead of Redis")
	flags.IntVar(&o.press.Hall, "hall", o.press.Hall, "silent members of a large group (with the users, more than 100 are told by one push); 0: no such group")
	flags.StringVar(&o.keep, "keep", "", "folder to leave logs and data in")
	return cmd
}

// runChat starts a circle without telemetry, which messages do not need, checks it and
// ends it.
func runChat(ctx context.Context, product Config, o chatOptions, errOut io.Writer, log *slog.Logger) (chat.Report, error) {
	dir := o.keep
	if dir == "" {
		tmp, err := os.MkdirTemp("", "tracegate-chat-")
		if err != nil {
			return chat.Report{}, fmt.Errorf("make a temporary folder: %w", err)
		}
		defer os.RemoveAll(tmp) // a temporary folder
		dir = tmp
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return chat.Report{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return chat.Report{}, err
	}
	ports := engines.NewPorts(os.Getpid() * 97)
	cfg, err := chatProduct(product, dir, ports)
	if err != nil {
		return chat.Report{}, err
	}
	set, err := startEngines(ctx, o.engines, engines.Config{Dir: dir, Cores: coreAddrs(cfg), Ports: ports, Password: crand.Text()}, log)
	if err != nil {
		return chat.Report{}, err
	}
	defer set.Close()
	logs, err := os.Create(filepath.Join(dir, "up.log"))
	if err != nil {
		return chat.Report{}, err
	}
	defer logs.Close()
	var report chat.Report
	err = withCircle(ctx, cfg, set, logs, log, func(ctx context.Context, w chat.World) (err error) {
		if o.faults {
			log.Info("chatting while things break", "seed", o.press.Seed, "duration", o.press.Duration, "engines", o.engines)
			report, err = chat.Faults(ctx, o.press, w, log)
		} else {
			report, err = chat.Scenarios(ctx, w, log)
		}
		report.Engines = o.engines
		return err
	})
	if err != nil {
		tail(errOut, logs.Name())
	}
	return report, err
}

func coreAddrs(cfg Config) (addrs []string) {
	for _, p := range cfg.Core.Pools {
		addrs = append(addrs, p.Listen)
	}
	return addrs
}

func startEngines(ctx context.Context, which string, cfg engines.Config, log *slog.Logger) (*engines.Set, error) {
	switch which {
	case "real", "valkey":
		cfg.Valkey = which == "valkey"
		return engines.StartReal(ctx, cfg, log)
	case "embedded":
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this binary: %w", err)
		}
		return engines.StartEmbedded(ctx, cfg, self, log)
	}
	return nil, fmt.Errorf("engines: %q is neither embedded, real nor valkey", which)
}

// chatProduct is the configuration of the circle: addresses of its own, and what core
// shares comes from engines.
func chatProduct(product Config, dir string, ports *engines.Ports) (Config, error) {
	cfg := product
	cfg.Data = filepath.Join(dir, "data")
	cfg.ControlPlane.Policy = ""
	cfg.Kafka.Embedded, cfg.Redis.Embedded, cfg.ClickHouse.Embedded, cfg.Probe.Enabled = false, false, false, false
	cfg.Kafka.Replication = -1                                                                           // its broker is the only one
	cfg.Kafka.TLS, cfg.Kafka.SASL, cfg.ClickHouse.TLS = tlsdial.Config{}, queue.SASL{}, tlsdial.Config{} // its engines are on loopback
	cfg.Redis.TLS, cfg.Redis.Username, cfg.Redis.Cluster = tlsdial.Config{}, "", false
	cfg.Core.Pools, cfg.Observe.HTTP = nil, ""
	addrs := []*string{
		&cfg.Edge.Listen, &cfg.Edge.Admin, &cfg.ControlPlane.XDS, &cfg.ControlPlane.API,
		&cfg.Observe.OTLP, &cfg.Observe.Console, &cfg.Observe.Admin, &cfg.ClickHouse.Addr, &cfg.RateLimit.Listen, &cfg.Search.Listen, // nobody listens on these
	}
	for _, name := range []string{"baseline", "canary", "isolated"} {
		cfg.Core.Pools = append(cfg.Core.Pools, PoolConfig{Name: name})
	}
	for i := range cfg.Core.Pools {
		addrs = append(addrs, &cfg.Core.Pools[i].Listen, &cfg.Core.Pools[i].Admin)
	}
	for _, a := range addrs {
		addr, err := ports.Take()
		if err != nil {
			return cfg, err
		}
		*a = addr
	}
	return cfg, nil
}

// withCircle runs control plane, core and edge on the engines, calls do, and ends them.
func withCircle(ctx context.Context, cfg Config, set *engines.Set, logs io.Writer, log *slog.Logger, do func(context.Context, chat.World) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var files []string // a configuration for each core process
	for i := range cfg.Core.Pools {
		own := cfg
		own.Kafka.Brokers, own.Database.URL = []string{set.Brokers[i]}, set.DatabaseURLs[i]
		own.Redis.Addrs, own.Redis.Password = set.RedisAddrs, set.RedisPassword
		var yaml bytes.Buffer
		printConfig(&yaml, own)
		file := filepath.Join(filepath.Dir(cfg.Data), fmt.Sprintf("core-%d.yaml", i))
		if err := os.WriteFile(file, yaml.Bytes(), 0o600); err != nil {
			return err
		}
		files = append(files, file)
	}
	u := newUp(cfg, &options{config: files[0]}, io.Discard, logs)
	if err := u.prepare(); err != nil {
		return err
	}
	seen := cfg // by the edge: behind networks
	seen.Core.Pools = slices.Clone(cfg.Core.Pools)
	for i, addr := range set.CoreAddrs {
		seen.Core.Pools[i].Listen = addr
	}
	if err := newUp(seen, u.opts, io.Discard, logs).writeFirstPolicy(); err != nil {
		return err
	}
	in, err := u.install(ctx)
	if err != nil {
		return err
	}
	lc := local.DefaultConfig()
	lc.StatusFile, lc.Output, lc.StartTimeout = cfg.statusFile(), logs, 4*time.Minute // a machine that is busy
	s, err := local.New(lc, u.chatStages(in, files), u.log)
	if err != nil {
		return err
	}
	w := chat.World{Edge: "http://" + cfg.Edge.Listen}
	for _, p := range cfg.Core.Pools {
		w.Cores = append(w.Cores, "http://"+p.Listen)
		w.Faults = append(w.Faults, chat.PartFaults(chatPart(cfg, corePart(p.Name)), "kill", "kill", "drain", "freeze")...)
	}
	w.Faults = append(w.Faults, chat.PartFaults(chatPart(cfg, partEdge), "kill")...)
	for _, e := range set.Engines() {
		w.Faults = append(w.Faults, chat.EngineFaults(e)...)
	}
	var result error
	err = s.Run(ctx, ctx, func(ctx context.Context) error {
		log.Info("circle is up", "edge", w.Edge, "data", cfg.Data)
		result = do(ctx, w)
		cancel()
		return nil
	})
	if err != nil {
		return err
	}
	return result
}

// chatStages are the parts that messages need, each core process with its own engines'
// addresses.
func (u *up) chatStages(in installed, files []string) [][]local.Part {
	part := func(name, file string, args ...string) local.Part {
		return local.Part{Name: name, Argv: append(append([]string{in.self}, args...), "--config", file), Stop: time.Second}
	}
	control := part(partControlPlane, files[0], "controlplane")
	control.Ready = readyz(in.client, u.cfg.ControlPlane.API)
	services := []local.Part{control}
	for i, p := range u.cfg.Core.Pools {
		c := part(corePart(p.Name), files[i], "core", "--pool", p.Name)
		c.Ready = readyz(in.client, p.Admin)
		services = append(services, c)
	}
	edge := part(partEdge, files[0], "edge")
	edge.Ready = edgeReady(in.client, u.cfg)
	return [][]local.Part{services, {edge}}
}

// chatPart is a part as the lab breaks it: found by the supervisor's status, and healed
// when it serves again.
func chatPart(cfg Config, name string) chat.Part {
	status := func() (local.PartStatus, error) {
		s, err := local.ReadStatus(cfg.statusFile())
		if err != nil {
			return local.PartStatus{}, err
		}
		p, ok := s.Part(name)
		if !ok {
			return p, fmt.Errorf("no part %s in %s", name, cfg.statusFile())
		}
		return p, nil
	}
	return chat.Part{
		Name: name,
		PID: func() (int, error) {
			p, err := status()
			return p.PID, err
		},
		Healed: func(killed int) (bool, error) {
			p, err := status()
			return err == nil && p.State == local.Running && p.PID != killed, err
		},
	}
}

// embeddedCommand runs one embedded engine as a process of its own, for the lab, which
// kills it. `up` runs them in itself.
func embeddedCommand(opts *options) *cobra.Command {
	return &cobra.Command{
		Use: "embedded kafka|redis ADDRESS FOLDER", Short: "run an embedded engine alone", Args: cobra.ExactArgs(3), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			product, err := opts.load()
			if err != nil {
				return err
			}
			log := newLogger(cmd.ErrOrStderr(), product.Log, args[0])
			ready := func(addr string) { log.Info("embedded engine serves", "address", addr) }
			switch args[0] {
			case "kafka":
				return queueembedded.Run(cmd.Context(), queueembedded.Config{Listen: args[1], Dir: args[2]}, ready, log)
			case "redis":
				return fanoutembedded.Run(cmd.Context(), fanoutembedded.Config{Listen: args[1], Password: os.Getenv("TRACEGATE_REDIS_PASSWORD")}, ready)
			}
			return fmt.Errorf("%q is neither kafka nor redis", args[0])
		},
	}
}

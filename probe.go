package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"

	"github.com/tracegate/tracegate/bpf"
	"github.com/tracegate/tracegate/bpf/otlp"
	"github.com/tracegate/tracegate/bpf/probe"
	"github.com/tracegate/tracegate/bpf/top"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/identity"
	"github.com/tracegate/tracegate/mesh/local"
	"github.com/tracegate/tracegate/observability/console"
	"github.com/tracegate/tracegate/observability/semconv"
)

func probeCommand(opts *options) *cobra.Command {
	cmd := partCommand(opts, partProbe, "measure with kernel probes (eBPF) what the product's processes wait for", runProbe)
	cmd.AddCommand(probeTopCommand(opts))
	return cmd
}

func probeTopCommand(opts *options) *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use: "top", Short: "show the running probes in the terminal", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := opts.load()
			if err != nil {
				return err
			}
			t := top.DefaultConfig()
			t.Addr, t.Once = cfg.Probe.Admin, once
			return top.Run(cmd.Context(), t, cmd.OutOrStdout(), terminalSize)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "print once, for a script")
	return cmd
}

// terminalSize is that of standard output; a common one where it is no terminal.
func terminalSize() (columns, rows int) {
	columns, rows, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 160, 48
	}
	return columns, rows
}

// runProbe runs the kernel probes on the processes that the supervisor keeps.
func runProbe(ctx context.Context, cfg Config, log *slog.Logger) error {
	stats, err := bpf.Confine()
	if err != nil {
		log.Warn("privileges are kept that the probes do not need", "error", err)
	}
	c := bpf.DefaultConfig()
	c.Admin, c.Interval = cfg.Probe.Admin, time.Second
	c.Thresholds.Connect, c.Thresholds.Scheduler = cfg.Probe.Connect, cfg.Probe.Scheduler
	c.Targets = cfg.addressNames()
	trust, err := toObserve(cfg, identity.Probe)
	if err != nil {
		return err
	}
	receiver, err := grpc.NewClient(cfg.Observe.OTLP, grpc.WithTransportCredentials(credentialsOf(trust)))
	if err != nil {
		return fmt.Errorf("connect to telemetry receiver: %w", err)
	}
	defer receiver.Close()
	return bpf.Run(ctx, c, bpf.Deps{
		Processes: supervised{cfg}, Registry: newRegistry(), Export: otlp.New(receiver, time.Now()), Stats: stats,
	}, log)
}

// addressNames says what is behind the addresses that parts connect to.
func (c Config) addressNames() map[string]string {
	names := map[string]string{c.Observe.OTLP: "telemetry", c.ControlPlane.API: "control plane", c.ClickHouse.Addr: "ClickHouse"}
	for _, b := range c.Kafka.Brokers {
		names[b] = "Kafka"
	}
	for _, r := range c.Redis.Addrs {
		names[r] = "Redis"
	}
	for _, p := range c.Core.Pools {
		names[p.Listen] = "core " + p.Name
	}
	for addr := range names {
		if _, err := netip.ParseAddrPort(addr); err != nil { // a host name: the kernel knows addresses only
			delete(names, addr)
		}
	}
	return names
}

// supervised are the processes of this product, as its supervisor knows them.
type supervised struct{ cfg Config }

// Processes implements bpf.Processes.
func (s supervised) Processes(context.Context) ([]bpf.Process, error) {
	status, err := local.ReadStatus(s.cfg.statusFile())
	if err != nil {
		return nil, err
	}
	out := []bpf.Process{{PID: status.Supervisor, Owner: probe.Owner{Service: "embedded", Name: "up"}}}
	for _, p := range status.Parts {
		if p.PID == 0 || p.Name == partProbe {
			continue
		}
		one := bpf.Process{PID: p.PID, Owner: probe.Owner{Service: p.Name, Name: p.Name}}
		for _, pool := range s.cfg.Core.Pools {
			if p.Name == corePart(pool.Name) {
				one.Owner.Service, one.Owner.Pool = semconv.ServiceCore, pool.Name
				one.Metrics = "http://" + pool.Admin + "/metrics"
			}
		}
		out = append(out, one)
		if p.Name == partEdge {
			for _, pid := range children(p.PID) {
				out = append(out, bpf.Process{PID: pid, Owner: probe.Owner{Service: semconv.ServiceEdge, Name: "envoy"}})
			}
		}
	}
	return out, nil
}

// children are the processes that pid has started, where the kernel tells.
func children(pid int) []int {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var out []int
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for f := range strings.FieldsSeq(string(raw)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// probes asks the probe process what it has read.
type probes struct {
	addr   string
	client *http.Client
}

func newProbes(addr string) probes {
	return probes{addr: addr, client: &http.Client{Timeout: time.Second}}
}

// Causes implements controlplane.CauseSource: decisions are explained by what the
// probes saw.
func (p probes) Causes(ctx context.Context) (map[decide.Pool][]string, error) {
	s, err := bpf.Fetch(ctx, p.client, p.addr)
	if err != nil {
		return nil, err
	}
	out := map[decide.Pool][]string{}
	for _, c := range s.Causes {
		pool := decide.Pool{Service: c.Owner.Service, Name: c.Owner.Pool}
		out[pool] = append(out[pool], c.Text)
	}
	return out, nil
}

// Probes implements console.Probes.
func (p probes) Probes(ctx context.Context) (r console.KernelReport, err error) {
	err = bpf.FetchInto(ctx, p.client, p.addr, &r)
	return r, err
}

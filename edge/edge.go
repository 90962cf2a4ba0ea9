// Package edge is the Envoy in front of everything: it installs or finds one, writes
// its bootstrap, runs it until told to stop, and drains it.
//
// What Envoy does with a request is decided elsewhere: by the filter inside it
// (wasm/) and by the configuration it gets from the control plane (controlplane/).
// Caller: the `edge` subcommand.
package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/controlplane/xds/parts"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/placement"
)

// Config is one edge on this machine.
type Config struct {
	// Bootstrap is who this edge is, where its control plane is, and its limits.
	Bootstrap bootstrap.Config
	// Envoy is the path of a binary; empty means PATH, then the pinned download.
	Envoy string
	// CacheDir is where downloads live; empty means the user's cache folder.
	CacheDir string
	// Dir is where Envoy runs: the bootstrap file is written there, and the control plane
	// may name files in it. It is created.
	Dir string
	// Listen are the addresses that the control plane is going to give to listeners.
	// They are checked to be free first, because two Envoys can share a port without
	// either of them noticing (SO_REUSEPORT).
	Listen []string
	// Concurrency is the number of worker threads; 0 means one a core.
	Concurrency int
	// Drain is how long open requests and sockets may take to end. Zero cuts them.
	Drain time.Duration
	// LogLevel is Envoy's own; empty means info, which is logged as debug.
	LogLevel string
	// Upgrade, at each value, has an Envoy of the binary and the bootstrap of that moment
	// take over from the one that runs, without closing a socket. nil: never.
	Upgrade <-chan struct{}
}

// DefaultConfig fits one edge on one machine.
func DefaultConfig() Config {
	return Config{
		Bootstrap: bootstrap.DefaultConfig(),
		Dir:       filepath.Join(".tracegate", "edge"),
		Listen:    []string{"127.0.0.1:8080"},
		Drain:     10 * time.Second,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	errs := []error{c.Bootstrap.Validate()}
	if c.Dir == "" {
		errs = append(errs, errors.New("dir: is empty"))
	}
	if c.Concurrency < 0 {
		errs = append(errs, fmt.Errorf("concurrency: %d is negative", c.Concurrency))
	}
	if c.Drain < 0 {
		errs = append(errs, fmt.Errorf("drain: %s is negative", c.Drain))
	}
	for _, addr := range c.Listen {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("listen: %q is not host:port", addr))
		}
	}
	return errors.Join(errs...)
}

// Run runs Envoy until ctx is done, then drains it. [Config.Upgrade] replaces it
// meanwhile. It returns an error when Envoy
// could not start or ended by itself; whoever supervises starts it again, and the
// control plane gives it the configuration it had.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	if err := portsFree(ctx, append([]string{cfg.Bootstrap.Admin}, cfg.Listen...)); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	binary, err := envoy.Find(ctx, cfg.Envoy, cfg.CacheDir, log)
	if err != nil {
		return fmt.Errorf("find envoy: %w", err)
	}
	l := &line{cfg: cfg, log: log, binary: binary}
	if err := l.next(ctx); err != nil {
		return err
	}
	return l.run(ctx)
}

// watchUncolored says so while requests pass without a group: the filter is missing,
// died or panicked, and the policy lets them pass. Envoy logs only the last.
func watchUncolored(ctx context.Context, admin *envoy.Admin, log *slog.Logger) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for seen := uint64(0); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		n, err := admin.Sum(ctx, xds.UncoloredStat)
		if err == nil && n > seen {
			log.Error("requests pass uncolored: the edge filter panicked (see Envoy's log), does not run (see its NACK in /v1/status), or died (change the policy to load it again)", "requests", n-seen)
			seen = n
		}
	}
}

func start(cfg Config, binary string, epoch int, log *slog.Logger) (*envoy.Process, error) {
	cfg.Bootstrap.Generation = time.Now().UnixMilli() // grows, also where a crash begins a new line
	b, err := bootstrap.Build(cfg.Bootstrap)
	if err != nil {
		return nil, fmt.Errorf("build bootstrap: %w", err)
	}
	js, err := bootstrap.JSON(b)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder for the bootstrap: %w", err)
	}
	if err := identify(cfg.Bootstrap.Identity); err != nil {
		return nil, err
	}
	return envoy.Start(envoy.Options{
		Binary: binary, Bootstrap: js, Admin: cfg.Bootstrap.Admin, Dir: cfg.Dir,
		Concurrency: cfg.Concurrency, LogLevel: cfg.LogLevel, Drain: cfg.Drain,
		Environment: []string{parts.ViaVariable + "=" + placement.Via(cfg.Bootstrap.ID, cfg.Bootstrap.Generation)},
		Lineage:     &envoy.Lineage{Epoch: epoch},
	}, log)
}

// portsFree tries to listen, without sharing the port, and lets go again.
func portsFree(ctx context.Context, addrs []string) error {
	var lc net.ListenConfig
	for _, addr := range addrs {
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("%w: %s: end the program that listens there or choose another address", envoy.ErrPortInUse, addr)
			}
			return fmt.Errorf("listen on %s: %w", addr, err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// identify tells Envoy where its identity is. A folder that cannot be written is fine
// where it says so already.
func identify(dir string) error {
	if dir == "" {
		return nil
	}
	files, err := bootstrap.IdentityFiles(dir)
	if err != nil {
		return err
	}
	for path, content := range files {
		if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, content) {
			continue
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("write identity: %w", err)
		}
	}
	return nil
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/mesh/local"
)

func upCommand(opts *options) *cobra.Command {
	var check, encrypted bool
	cmd := &cobra.Command{
		Use: "up", Short: "run everything on this machine; no server needed", Args: cobra.NoArgs,
		Long: "Runs Envoy with its filter, the control plane, core in every pool, the telemetry receiver, the console and the\n" +
			"embedded engines, each as a process of its own, and keeps them running. Ctrl-C drains them in order; a second\n" +
			"Ctrl-C ends them at once. What is kept lies in the data folder, so the next start goes on where this one ended.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if encrypted {
				opts.encrypt()
			}
			cfg, err := opts.load()
			if err != nil {
				return err
			}
			u := newUp(cfg, opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if check {
				return u.check()
			}
			return u.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&encrypted, "tls", false, "listen for TLS too, on 127.0.0.1:8443 where edge.tls.listen says nothing else")
	cmd.Flags().BoolVar(&check, "check", false, "check configuration, data folder and ports, then end")
	return cmd
}

// up runs the product on one machine.
type up struct {
	cfg    Config
	opts   *options
	out    io.Writer // what the user came for: addresses and promises
	errOut io.Writer // logs of all parts
	log    *slog.Logger
	// ready is called once a request has gone round the circle; the product runs on
	// until the context ends.
	ready func(context.Context) error
}

func newUp(cfg Config, opts *options, out, errOut io.Writer) *up {
	return &up{
		cfg: cfg, opts: opts, out: out, errOut: errOut, log: newLogger(errOut, cfg.Log, "up"),
		ready: func(context.Context) error { return nil },
	}
}

// check says whether run would start, and starts nothing.
func (u *up) check() error {
	if err := u.prepare(); err != nil {
		return err
	}
	fmt.Fprintf(u.out, "configuration, data folder %s and %d ports are fine\n", u.cfg.Data, len(u.cfg.listeners()))
	return nil
}

// prepare makes the data folder with its secrets and first policy, and checks that
// the ports are free.
func (u *up) prepare() error {
	for _, dir := range []string{u.cfg.Data, u.cfg.run()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("data folder: %w; choose one that can be written with --data", err)
		}
	}
	if err := makeSecrets(u.cfg.secrets()); err != nil {
		return fmt.Errorf("data folder: %w; choose one that can be written with --data", err)
	}
	if err := u.writeFirstPolicy(); err != nil {
		return err
	}
	now := time.Now()
	if err := errors.Join(makeFirstCertificate(u.cfg, now), makeIdentities(u.cfg, now)); err != nil {
		return err
	}
	return freePorts(u.cfg.listeners())
}

// freePorts returns one line for the first address that cannot be listened on.
func freePorts(listeners map[string]string) error {
	for _, key := range sortedKeys(listeners) {
		l, err := net.Listen("tcp", listeners[key])
		if err == nil {
			err = l.Close()
		}
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			return fmt.Errorf("%s is in use by another process: end it (a running tracegate, perhaps), or choose another address with --set %s=HOST:PORT",
				listeners[key], key)
		case err != nil:
			return fmt.Errorf("%s: listen on %s: %w", key, listeners[key], err)
		}
	}
	return nil
}

// run starts the parts in dependency order, waits until one request has gone the
// whole circle, says where everything is, and keeps it running until ctx is done.
func (u *up) run(ctx context.Context) error {
	start := time.Now()
	if err := u.prepare(); err != nil {
		return err
	}
	files, err := u.install(ctx)
	if err != nil {
		return err
	}
	stopEmbedded, err := u.startEmbedded(ctx)
	if err != nil {
		return err
	}
	defer stopEmbedded()

	kill, killNow := secondInterrupt(ctx)
	defer killNow()
	cfg := local.DefaultConfig()
	cfg.StatusFile = u.cfg.statusFile()
	cfg.Output = u.errOut
	s, err := local.New(cfg, u.stages(files), u.log)
	if err != nil {
		return err
	}
	installed := time.Now()
	err = s.Run(ctx, kill, func(ctx context.Context) error {
		ready := time.Now()
		trace, err := u.firstCircle(ctx)
		if err != nil {
			return fmt.Errorf("first circle: %w", err)
		}
		u.log.Info("circle closed", "install", installed.Sub(start).Round(time.Millisecond), "start", ready.Sub(installed).Round(time.Millisecond),
			"circle", time.Since(ready).Round(time.Millisecond), "trace", trace)
		u.printAddresses(time.Since(start))
		return u.stay(ctx, kill, s, files)
	})
	if ctx.Err() != nil {
		fmt.Fprintln(u.out, "\nstopped; the data is in", u.cfg.Data)
	}
	return err
}

// secondInterrupt returns a context that is done at the first interrupt after ctx
// was: the user does not want to wait for the drain.
func secondInterrupt(ctx context.Context) (kill context.Context, stop func()) {
	kill, cancel := context.WithCancel(context.WithoutCancel(ctx))
	again := make(chan os.Signal, 1)
	go func() {
		select {
		case <-ctx.Done():
		case <-kill.Done():
			return
		}
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(again)
		select {
		case <-again:
		case <-kill.Done():
		}
		cancel()
	}()
	return kill, cancel
}

// readyz returns a readiness check for a part's admin address.
func readyz(client *http.Client, addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		status, _, err := head(ctx, client, "http://"+addr+"/readyz")
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return fmt.Errorf("%s is not ready: %d", addr, status)
		}
		return nil
	}
}

// The places in the data folder.
func (c Config) secrets() string    { return filepath.Join(c.Data, "secrets") }
func (c Config) run() string        { return filepath.Join(c.Data, "run") }
func (c Config) statusFile() string { return filepath.Join(c.run(), "status.json") }
func (c Config) endpoints() string  { return filepath.Join(c.Data, "endpoints.yaml") }
func (c Config) certificates() string {
	return cmp.Or(c.ControlPlane.Certificates, filepath.Join(c.Data, "certificates"))
}
func (c Config) policyFile() string {
	if c.ControlPlane.Policy != "" {
		return c.ControlPlane.Policy
	}
	return filepath.Join(c.Data, "policy.yaml")
}

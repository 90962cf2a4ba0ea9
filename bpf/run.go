package bpf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/bpf/probe"
)

// Deps is what Run needs of others.
type Deps struct {
	Processes Processes
	Registry  *prometheus.Registry
	// Export receives every reading; nil: nobody does. See Exporter.
	Export Exporter
	// Stats keeps the kernel's measuring of run times on (Confine); nil: Run tries to
	// switch it on. Run closes it.
	Stats io.Closer
	// Listener stands in for one on Config.Admin; Run closes it.
	Listener net.Listener
}

// Exporter takes readings elsewhere (bpf/otlp), one call at a time. All is cumulative
// since the probes began, so a reading that could not be exported is not offered
// again: the next one has everything in it.
type Exporter interface {
	Export(ctx context.Context, at time.Time, series []probe.Series, counts []probe.Count) error
}

// ErrNoProbe is returned by Run when probes are required and none can be loaded.
var ErrNoProbe = errors.New("no kernel probe can be loaded")

// Run loads the probes, reads them until ctx is done, and takes them out again. It
// says how well each works in one line, and fails only when probes are required and
// there is none, or when it cannot listen.
//
// It keeps the privileges of its process: see Confine.
func Run(ctx context.Context, cfg Config, deps Deps, log *slog.Logger) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	l := deps.Listener
	if l == nil {
		if l, err = net.Listen("tcp", cfg.Admin); err != nil {
			return fmt.Errorf("listen for admin: %w", err)
		}
	}
	defer l.Close()
	o := newOwners()
	kernel, probes, err := openProbes(cfg, deps.Stats, o, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	for _, p := range probes {
		logState(log, p.status)
	}
	if cfg.Required && none(probes) {
		return fmt.Errorf("%w: %s", ErrNoProbe, probes[0].status.Why)
	}
	m := newMonitor(cfg, o, deps.Processes, kernel, probes, log)
	m.export = deps.Export
	if err := deps.Registry.Register(newCollector(m)); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return m.run(ctx) })
	work.Go(func() error { return serve(ctx, l, admin(m, deps.Registry)) })
	return work.Wait()
}

func none(probes []loaded) bool {
	for _, p := range probes {
		if p.running != nil {
			return false
		}
	}
	return true
}

func allOff(why string) []loaded {
	var out []loaded
	for _, name := range Names() {
		out = append(out, loaded{status: probe.Status{Probe: name, State: probe.Off, Why: why}})
	}
	return out
}

// admin serves what Run promises.
func admin(m *monitor, reg *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := m.Snapshot(); !ok {
			http.Error(w, "nothing read yet", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /v1/probes", func(w http.ResponseWriter, _ *http.Request) {
		s, ok := m.Snapshot()
		if !ok {
			http.Error(w, "nothing read yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// The only error is a client that has gone.
		_ = json.NewEncoder(w).Encode(s)
	})
	return mux
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve admin: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return errors.Join(s.Shutdown(grace), closed(<-ended))
}

// closed takes the one error of Serve that is none.
func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Fetch asks a running probe process for its last reading.
func Fetch(ctx context.Context, client *http.Client, addr string) (s Snapshot, err error) {
	err = FetchInto(ctx, client, addr, &s)
	return s, err
}

// FetchInto is Fetch for a type of the caller's own that has a Snapshot's JSON.
func FetchInto(ctx context.Context, client *http.Client, addr string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v1/probes", nil)
	if err != nil {
		return fmt.Errorf("ask the probes: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the probes: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the probes at %s: %s", addr, res.Status)
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, res.Body, 16<<20)).Decode(into); err != nil {
		return fmt.Errorf("read the probes' answer: %w", err)
	}
	return nil
}

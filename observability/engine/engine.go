// Package engine runs an embedded ClickHouse: the real engine as a library
// (engine/chdb) behind ClickHouse's HTTP interface, so that clickhouse-go/v2 with
// Protocol HTTP, curl and every other HTTP client of ClickHouse work with it as with a
// server. The child process `tracegate clickhouse` runs it and nothing else does: the
// library is C++ and a crash of it must take nothing else along.
//
// An acknowledged INSERT survives kill -9 of the process (tested). It is not promised
// to survive a power cut: parts are not synced to disk one by one, as in ClickHouse's
// own defaults.
//
// Not here, where a ClickHouse server has it: the native TCP protocol, sessions, roles,
// several users, external tables, progress headers, replication. A client that knows
// the password may do all that the engine can, reading local files included; so it
// listens on loopback only. Every statement gets a connection of its own (0.3 ms), so
// that no setting, database or temporary table reaches the next one; a pool would have
// to undo them, and lost.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/observability/engine/chdb"
)

// Run loads the engine, serves until ctx is done, lets running statements finish for
// Config.Drain, ends those that have not, and closes the engine.
func Run(ctx context.Context, cfg Config, reg *prometheus.Registry, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("clickhouse configuration: %w", err)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make clickhouse folder: %w", err)
	}
	// Listen first: a port in use is the commonest fault and the cheapest to find.
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return fmt.Errorf("listen for clickhouse clients: %w", err)
	}
	defer listener.Close()
	start := time.Now()
	lib, err := chdb.Open(cfg.Library)
	if err != nil {
		return fmt.Errorf("open clickhouse engine: %w", err)
	}
	s, err := newServer(cfg, lib, reg, log)
	if err != nil {
		return err
	}
	log.Info("clickhouse engine is ready", "addr", listener.Addr().String(), "version", s.version, "chdb", lib.Version(), "took", time.Since(start).Round(time.Millisecond))
	err = s.serve(ctx, listener)
	s.keep.Close()
	return err
}

// server answers ClickHouse's HTTP interface.
type server struct {
	cfg     Config
	lib     *chdb.Library
	keep    *chdb.Conn // held open: the engine ends with its last connection
	gate    *gate
	metrics *metrics
	reg     *prometheus.Registry
	log     *slog.Logger

	version, timezone string
	settings          map[string]bool // names the engine knows; it ignores others silently
	sequence          atomic.Int64
}

func newServer(cfg Config, lib *chdb.Library, reg *prometheus.Registry, log *slog.Logger) (*server, error) {
	g := newGate(cfg.MaxQueries, cfg.MaxWaiting)
	s := &server{cfg: cfg, lib: lib, gate: g, metrics: newMetrics(reg, g), reg: reg, log: log, settings: map[string]bool{}}
	var err error
	if s.keep, err = s.connect(); err != nil {
		return nil, fmt.Errorf("open clickhouse folder %s (is another engine running on it?): %w", cfg.DataDir, err)
	}
	about, err := s.lines("SELECT arrayJoin([version(), timezone()])")
	if err != nil || len(about) != 2 {
		return nil, fmt.Errorf("ask engine for its version: %w", errors.Join(err, fmt.Errorf("answer %q", about)))
	}
	s.version, s.timezone = about[0], about[1]
	names, err := s.lines("SELECT name FROM system.settings")
	if err != nil {
		return nil, fmt.Errorf("ask engine for its settings: %w", err)
	}
	for _, n := range names {
		s.settings[n] = true
	}
	return s, nil
}

// lines runs sql on the kept connection and returns its result's lines.
func (s *server) lines(sql string) ([]string, error) {
	r, err := s.keep.Query(sql, "TabSeparated", nil)
	if err != nil {
		return nil, err
	}
	defer r.Free()
	return strings.Split(strings.TrimSuffix(string(r.Bytes()), "\n"), "\n"), nil
}

// serve returns once every handler has returned.
func (s *server) serve(ctx context.Context, listener net.Listener) error {
	hs := &http.Server{Handler: s.mux(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 20}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := hs.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve clickhouse clients: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
		defer cancel()
		if err := hs.Shutdown(drain); err == nil {
			return nil
		}
		s.log.Warn("statements outlast the drain time and are ended", "drain", s.cfg.Drain)
		s.kill("1")
		// Closing the connections cancels the requests; handlers then return, and
		// with them the places at the gate.
		err := hs.Close()
		for range s.cfg.MaxQueries {
			s.gate.running <- struct{}{}
		}
		return err
	})
	return g.Wait()
}

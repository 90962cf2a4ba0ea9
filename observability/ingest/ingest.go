// Package ingest receives OTLP over gRPC and stores it in ClickHouse: spans of services,
// spans of the edge, made from Envoy's access log, and points of metrics (ingest/otlp).
//
// A message is acknowledged once ClickHouse has its records or, while ClickHouse is
// away, once they are on disk (ingest/spool). The spool is drained when ClickHouse is
// back, each batch under the token of its first try, so a batch whose answer was lost is
// not counted twice. New batches do not queue behind the spool: what decides needs the
// newest seconds first. Every bound has a rule and every record is accounted for
// ([Account]).
//
// What it does not do: a sender that repeats a message whose acknowledgement it did not
// get makes new records of it (OTLP is at least once); logs other than the edge's are
// accepted and dropped with a count. The OpenTelemetry collector with its ClickHouse
// exporter can take this package's place for services' spans and metrics; it lost as the
// default because its queue drops without telling the sender, and because it knows
// neither groups nor the edge's log.
package ingest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // OTLP senders may compress
	"google.golang.org/grpc/keepalive"

	"github.com/tracegate/tracegate/observability/ingest/otlp"
	"github.com/tracegate/tracegate/observability/ingest/spool"
)

// Ingest receives and stores. Its fields are not changed after New.
type Ingest struct {
	cfg    Config
	book   *ledger
	spool  *spool.Spool
	writer *writer
	log    *slog.Logger
}

// New checks cfg, opens the spool and starts nothing.
func New(cfg Config, sink Sink, reg prometheus.Registerer, log *slog.Logger) (*Ingest, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("ingest configuration: %w", err)
	}
	sp, err := spool.Open(cfg.SpoolDir, cfg.SpoolBytes)
	if err != nil {
		return nil, err
	}
	book := newLedger(sp.Usage().Rows)
	i := &Ingest{
		cfg: cfg, book: book, spool: sp, log: log,
		writer: &writer{cfg: cfg, sink: sink, spool: sp, book: book, groups: newGroupMetrics(), log: log, filled: make(chan struct{}, 1)},
	}
	for _, c := range i.writer.groups.collectors() {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register group metrics: %w", err)
		}
	}
	if err := reg.Register(newCollector(i.Account)); err != nil {
		return nil, fmt.Errorf("register ingest metrics: %w", err)
	}
	return i, nil
}

// Account says where every record is now.
func (i *Ingest) Account() Account {
	a := i.book.snapshot()
	u := i.spool.Usage()
	a.SpoolBatches, a.SpoolBytes, a.Away = u.Batches, u.Bytes, i.writer.away.Load()
	return a
}

// Run listens on Config.Addr and serves until ctx is done; see Serve.
func (i *Ingest) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", i.cfg.Addr)
	if err != nil {
		return fmt.Errorf("listen for telemetry: %w", err)
	}
	return i.Serve(ctx, listener)
}

// Serve receives on listener until ctx is done. Then, in order: no new message is taken,
// those that are being received are stored and answered, and the spool keeps what is in
// it for the next run.
func (i *Ingest) Serve(ctx context.Context, listener net.Listener) error {
	var storing sync.WaitGroup
	spans, points := i.pipeline(&storing), i.pipeline(&storing)
	drainCtx, stopDraining := context.WithCancel(context.WithoutCancel(ctx))
	storing.Go(func() { i.writer.drain(drainCtx) })

	server := i.server(spans, points)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(listener); err != nil {
			return fmt.Errorf("serve telemetry: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		i.stop(server)
		return nil
	})
	err := g.Wait()
	close(spans) // every handler has returned
	close(points)
	stopDraining()
	storing.Wait()
	return err
}

// pipeline batches and writes what comes in until that is closed.
func (i *Ingest) pipeline(storing *sync.WaitGroup) chan<- submission {
	in, batches := make(chan submission), make(chan *batch)
	b := &batcher{cfg: i.cfg, in: in, out: batches}
	storing.Go(b.run)
	storing.Go(func() { i.writer.run(batches) })
	return in
}

// stop ends the server when running calls have been answered, or after Config.Drain.
func (i *Ingest) stop(server *grpc.Server) {
	cut := time.AfterFunc(i.cfg.Drain, server.Stop)
	defer cut.Stop()
	server.GracefulStop()
}

func (i *Ingest) server(spans, points chan<- submission) *grpc.Server {
	r := &receiver{
		cfg: i.cfg, convert: otlp.Converter{Limits: i.cfg.Limits, Env: i.cfg.Env, Tenant: i.cfg.Tenant}, random: random, spans: spans, points: points, book: i.book,
	}
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(i.cfg.MaxMessage),
		grpc.MaxConcurrentStreams(256),
		grpc.WaitForHandlers(true), // after Stop, too, no handler may submit
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	collectortrace.RegisterTraceServiceServer(server, traceService{receiver: r})
	collectorlogs.RegisterLogsServiceServer(server, logsService{receiver: r})
	collectormetrics.RegisterMetricsServiceServer(server, metricsService{receiver: r})
	return server
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return b
}

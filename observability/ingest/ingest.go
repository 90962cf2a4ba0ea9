// Package ingest receives OTLP, over gRPC and over HTTP, and stores it in ClickHouse: spans
// of services, spans of the edge, made from Envoy's access log, points of metrics, and log
// records (ingest/otlp).
//
// A message is acknowledged once ClickHouse has its records or, while ClickHouse is
// away, once they are on disk (ingest/spool). The spool is drained when ClickHouse is
// back, by inserts of many batches, each of which keeps its token until it is answered, so
// that one whose answer was lost is not counted twice. New batches do not queue behind the spool: what decides needs the
// newest seconds first. Every bound has a rule and every record is accounted for
// ([Account]).
//
// A batch ends by rows, bytes or time, and is stored by one of Config.Writers of its table,
// so that a slow insert need not hold up the next. Nothing depends on the order in which
// batches arrive: a token counts once whichever comes first, statistics add up, and a
// watermark is written only while no span is on its way. One writer is the default: a batch
// that waits for it grows, and large ones are cheap (6 s of the engine's CPU for a million
// spans from 64 senders, 17 s with eight writers). Several help where answers take long: of
// an engine 300 ms away four stored 44,000 spans a second, one 26,000
// (`bench:ingest -compare-writers`). A writer for a share of the groups each lost: it makes
// more parts, and keeps an order that nobody asks for.
//
// What it does not do: a sender that repeats a message whose acknowledgement it did not
// get makes new records of it (OTLP is at least once). The OpenTelemetry collector with its ClickHouse
// exporter can take this package's place for services' spans and metrics; it lost as the
// default because its queue drops without telling the sender, and because it knows
// neither groups nor the edge's log.
package ingest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
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
	sp, err := spool.Open(cfg.SpoolDir, spool.Bounds{Bytes: cfg.SpoolBytes, SegmentRows: cfg.FlushRows, SegmentBytes: cfg.FlushBytes / 8})
	if err != nil {
		return nil, err
	}
	for _, err := range sp.Unreadable() {
		log.Error("spooled segment cannot be read and stays for the next start", "error", err)
	}
	recovered := map[otlp.Table]int{}
	sp.Each(func(token string, rows int) { recovered[tableOf(token)] += rows })
	book := newLedger(recovered)
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
	a.SpoolSegments, a.SpoolBytes, a.Away = u.Segments, u.Bytes, i.writer.away.Load()
	return a
}

// Listeners are where OTLP comes in. HTTP may be nil.
type Listeners struct{ GRPC, HTTP net.Listener }

// Listen opens the listeners of cfg.
func Listen(cfg Config) (Listeners, error) {
	var l Listeners
	var err error
	if l.GRPC, err = net.Listen("tcp", cfg.Addr); err != nil {
		return Listeners{}, fmt.Errorf("listen for telemetry: %w", err)
	}
	if cfg.HTTPAddr == "" {
		return l, nil
	}
	if l.HTTP, err = net.Listen("tcp", cfg.HTTPAddr); err != nil {
		return Listeners{}, errors.Join(fmt.Errorf("listen for telemetry over HTTP: %w", err), l.GRPC.Close())
	}
	return l, nil
}

// Close closes listeners that are not served.
func (l Listeners) Close() error {
	if l.HTTP == nil {
		return l.GRPC.Close()
	}
	return errors.Join(l.GRPC.Close(), l.HTTP.Close())
}

// Serve receives on both listeners until ctx is done. Then, in order: no new message is
// taken, those that are being received are stored and answered, and the spool keeps what is
// in it for the next run.
func (i *Ingest) Serve(ctx context.Context, l Listeners) error {
	var storing sync.WaitGroup
	// Each table's rows are batched and written apart, so that none waits for another's.
	pipelines := map[otlp.Table]chan<- submission{}
	for _, t := range otlp.Tables() {
		pipelines[t] = i.pipeline(&storing)
	}
	drainCtx, stopDraining := context.WithCancel(context.WithoutCancel(ctx))
	storing.Go(func() { i.writer.drain(drainCtx) })

	r := &receiver{
		cfg: i.cfg, convert: otlp.Converter{Limits: i.cfg.Limits, Env: i.cfg.Env, Tenant: i.cfg.Tenant}, random: random, pipelines: pipelines, book: i.book,
	}
	g, gctx := errgroup.WithContext(ctx)
	server := i.server(r)
	g.Go(func() error {
		if err := server.Serve(l.GRPC); err != nil {
			return fmt.Errorf("serve telemetry: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		i.stop(server)
		return nil
	})
	if byHTTP := l.HTTP; byHTTP != nil {
		if i.cfg.HTTPTLS != nil {
			byHTTP = tls.NewListener(byHTTP, i.cfg.HTTPTLS)
		}
		g.Go(func() error { return serveHTTP(gctx, byHTTP, r, i.cfg.Drain) })
	}
	err := g.Wait()
	for _, in := range pipelines {
		close(in) // every handler has returned
	}
	stopDraining()
	storing.Wait()
	i.spool.Close()
	return err
}

// pipeline batches and writes what comes in until that is closed.
func (i *Ingest) pipeline(storing *sync.WaitGroup) chan<- submission {
	in, batches := make(chan submission), make(chan *batch)
	b := &batcher{cfg: i.cfg, in: in, out: batches}
	storing.Go(b.run)
	for range i.cfg.Writers {
		storing.Go(func() { i.writer.run(batches) })
	}
	return in
}

// stop ends the server when running calls have been answered, or after Config.Drain.
func (i *Ingest) stop(server *grpc.Server) {
	cut := time.AfterFunc(i.cfg.Drain, server.Stop)
	defer cut.Stop()
	server.GracefulStop()
}

func (i *Ingest) server(r *receiver) *grpc.Server {
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newRawCodec()),
		grpc.MaxRecvMsgSize(i.cfg.MaxMessage),
		grpc.MaxConcurrentStreams(256),
		grpc.WaitForHandlers(true), // after Stop, too, no handler may submit
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if i.cfg.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(i.cfg.TLS)))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(traceServiceDesc(), traceService{receiver: r})
	collectorlogs.RegisterLogsServiceServer(server, logsService{receiver: r})
	collectormetrics.RegisterMetricsServiceServer(server, metricsService{receiver: r})
	return server
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return b
}

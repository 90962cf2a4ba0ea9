// Package telemetry sets tracing up for one process: spans go to observability/ingest
// by OTLP, each with the traffic group of its trace. Every service's wiring calls Setup;
// nothing is global, so what needs a tracer or a propagator is given one.
//
// A collector that is away never blocks or slows who makes spans: ended spans wait in a
// bounded queue, and what does not fit is dropped and counted. The queue is the
// package's own because the SDK's batch processor does not say what it drops, and sends
// one batch at a time, which a receiver that answers after storing makes slow.
package telemetry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"

	"github.com/tracegate/tracegate/observability/semconv"
)

// Config says who makes spans and where they go.
type Config struct {
	Service  string
	Instance string // service.instance.id; may be empty
	Version  string // service.version; may be empty
	Pool     string // traffic.pool of every span; may be empty
	// Endpoint is host:port of an OTLP gRPC receiver. With none spans are made, carried
	// on and not sent.
	Endpoint string
	// TLS is how it is spoken to; nil: unencrypted, which is for loopback.
	TLS *tls.Config
	// Env and Tenant are those of traces whose baggage says neither.
	Env, Tenant string
	// Queue bounds ended spans that wait; what does not fit is dropped.
	Queue int
	// Batch and Every end a batch: by its spans, and by the time since its first.
	Batch int
	Every time.Duration
	// Exports is how many batches are under way at once.
	Exports int
	// Timeout bounds the sending of one batch, retries included.
	Timeout time.Duration
}

// DefaultConfig is Config without Service.
func DefaultConfig() Config {
	return Config{
		Endpoint: "127.0.0.1:4317", Env: "default", Tenant: "default",
		Queue: 16384, Batch: 2048, Every: 200 * time.Millisecond, Exports: 4, Timeout: 10 * time.Second,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Service == "":
		return errors.New("service: must not be empty")
	case c.Env == "", c.Tenant == "":
		return errors.New("env and tenant: must not be empty")
	case c.Batch < 1:
		return errors.New("batch: must be positive")
	case c.Queue < c.Batch:
		return errors.New("queue: must hold a batch")
	case c.Every <= 0:
		return errors.New("every: must be positive")
	case c.Exports < 1:
		return errors.New("exports: must be positive")
	case c.Timeout <= 0:
		return errors.New("timeout: must be positive")
	}
	return nil
}

// Providers is what Setup gives to those who make spans or pass traces on.
type Providers struct {
	// Tracer makes tracers, one an instrumented package.
	Tracer trace.TracerProvider
	// Propagator reads and writes W3C traceparent, tracestate and baggage.
	Propagator propagation.TextMapPropagator
	// Flush sends what has ended until now.
	Flush func(context.Context) error
	// Shutdown sends what has ended and stops; what is not sent when its context ends
	// is dropped and counted.
	Shutdown func(context.Context) error
}

// Setup starts sending. It does not wait for the receiver.
func Setup(ctx context.Context, cfg Config, reg prometheus.Registerer, log *slog.Logger) (Providers, error) {
	if err := cfg.Validate(); err != nil {
		return Providers{}, fmt.Errorf("telemetry configuration: %w", err)
	}
	opts := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(resource.NewSchemaless(attributes(cfg)...)),
		sdktrace.WithIDGenerator(baselineIDs{}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())),
		sdktrace.WithSpanProcessor(placer{cfg: cfg}),
	}
	if cfg.Endpoint != "" {
		exporter, err := otlptracegrpc.New(ctx,
			otlptracegrpc.WithEndpoint(cfg.Endpoint), security(cfg.TLS), otlptracegrpc.WithTimeout(cfg.Timeout),
			otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: 100 * time.Millisecond, MaxInterval: time.Second, MaxElapsedTime: cfg.Timeout}))
		if err != nil {
			return Providers{}, fmt.Errorf("set up span exporter: %w", err)
		}
		opts = append(opts, sdktrace.WithSpanProcessor(newQueue(cfg, exporter, reg, log)))
	}
	tp := sdktrace.NewTracerProvider(opts...)
	return Providers{
		Tracer:     tp,
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
		Flush:      tp.ForceFlush,
		Shutdown:   tp.Shutdown,
	}, nil
}

func security(c *tls.Config) otlptracegrpc.Option {
	if c == nil {
		return otlptracegrpc.WithInsecure()
	}
	return otlptracegrpc.WithTLSCredentials(credentials.NewTLS(c))
}

func attributes(cfg Config) []attribute.KeyValue {
	kvs := []attribute.KeyValue{attribute.String("service.name", cfg.Service)}
	for _, kv := range [][2]string{{"service.version", cfg.Version}, {"service.instance.id", cfg.Instance}, {semconv.Pool, cfg.Pool}} {
		if kv[1] != "" {
			kvs = append(kvs, attribute.String(kv[0], kv[1]))
		}
	}
	return kvs
}

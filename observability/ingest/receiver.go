package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tracegate/tracegate/observability/ingest/otlp"
)

// receiver is what the three OTLP services share.
type receiver struct {
	cfg       Config
	convert   otlp.Converter
	random    otlp.Random
	pipelines map[otlp.Table]chan<- submission
	book      *ledger
}

// keep returns once all rows of a message's results are stored or spooled. Each result is
// of another table.
func (r *receiver) keep(ctx context.Context, messageSize int, results ...*otlp.Result) error {
	size := int64(messageSize)
	for _, res := range results {
		size = max(size, res.Size)
	}
	if !r.book.receive(results, size, r.cfg.MaxPendingBytes, r.cfg.MaxPending) {
		return retryLater(codes.Unavailable, "too many records are waiting to be stored")
	}
	var waits []func() error
	for _, res := range results {
		if rows := (records{spans: res.Spans, points: res.Points, logs: res.Logs}); rows.len() > 0 {
			waits = append(waits, submit(ctx, r.pipelines[res.Table], rows, size))
			size = 0 // it goes with the first
		}
	}
	var errs []error
	for _, wait := range waits {
		errs = append(errs, wait())
	}
	err := errors.Join(errs...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTryAgain):
		return retryLater(codes.Unavailable, err.Error())
	case errors.Is(err, errNotKept):
		// Without RetryInfo an OTLP sender takes it as final.
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return status.FromContextError(err).Err()
}

// retryLater is an error that OTLP senders answer by sending again.
func retryLater(code codes.Code, message string) error {
	st := status.New(code, message)
	if detailed, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(500 * time.Millisecond)}); err == nil {
		st = detailed
	}
	return st.Err()
}

// explain is the text of a partial success.
func explain(dropped map[otlp.Reason]int) string { return fmt.Sprintf("not stored: %v", dropped) }

// traceService is the OTLP trace service. It takes a message as it came, see [rawCodec].
type traceService struct{ *receiver }

// Export stores the spans of an ExportTraceServiceRequest.
func (s traceService) Export(ctx context.Context, raw string) (*collectortrace.ExportTraceServiceResponse, error) {
	res, err := s.convert.Traces(raw, time.Now())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := s.keep(ctx, len(raw), res); err != nil {
		return nil, err
	}
	out := &collectortrace.ExportTraceServiceResponse{}
	if n := res.Rejected(); n > 0 {
		out.PartialSuccess = &collectortrace.ExportTracePartialSuccess{RejectedSpans: int64(n), ErrorMessage: explain(res.Dropped)}
	}
	return out, nil
}

type logsService struct {
	collectorlogs.UnimplementedLogsServiceServer
	*receiver
}

// Export implements the OTLP logs service, with the edge's access log among the logs.
func (s logsService) Export(ctx context.Context, req *collectorlogs.ExportLogsServiceRequest) (*collectorlogs.ExportLogsServiceResponse, error) {
	edge, logs := s.convert.Logs(req, time.Now(), s.random)
	if err := s.keep(ctx, proto.Size(req), edge, logs); err != nil {
		return nil, err
	}
	out := &collectorlogs.ExportLogsServiceResponse{}
	if n := edge.Rejected() + logs.Rejected(); n > 0 {
		for reason, n := range edge.Dropped {
			logs.Dropped[reason] += n // it has been booked
		}
		out.PartialSuccess = &collectorlogs.ExportLogsPartialSuccess{RejectedLogRecords: int64(n), ErrorMessage: explain(logs.Dropped)}
	}
	return out, nil
}

type metricsService struct {
	collectormetrics.UnimplementedMetricsServiceServer
	*receiver
}

// Export implements the OTLP metrics service.
func (s metricsService) Export(ctx context.Context, req *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	res := s.convert.Metrics(req, time.Now())
	if err := s.keep(ctx, proto.Size(req), res); err != nil {
		return nil, err
	}
	out := &collectormetrics.ExportMetricsServiceResponse{}
	if n := res.Rejected(); n > 0 {
		out.PartialSuccess = &collectormetrics.ExportMetricsPartialSuccess{RejectedDataPoints: int64(n), ErrorMessage: explain(res.Dropped)}
	}
	return out, nil
}

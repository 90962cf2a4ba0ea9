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
	cfg     Config
	convert otlp.Converter
	random  otlp.Random
	// spans and points are batched and written apart, so that neither waits for the other.
	spans, points chan<- submission
	book          *ledger
}

// keep stores a result's rows through in and returns once they are stored or spooled.
func (r *receiver) keep(ctx context.Context, in chan<- submission, rows records, res *otlp.Result, message proto.Message) error {
	size := max(int64(proto.Size(message)), res.Size)
	if !r.book.receive(res, size, r.cfg.MaxPendingBytes, r.cfg.MaxPending) {
		return retryLater(codes.Unavailable, "too many records are waiting to be stored")
	}
	if rows.len() == 0 {
		return nil
	}
	err := submit(ctx, in, rows, size)
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
func explain(r *otlp.Result) string {
	if len(r.Dropped) == 0 {
		return ""
	}
	return fmt.Sprintf("not stored: %v", r.Dropped)
}

type traceService struct {
	collectortrace.UnimplementedTraceServiceServer
	*receiver
}

// Export implements the OTLP trace service.
func (s traceService) Export(ctx context.Context, req *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	res := s.convert.Traces(req, time.Now())
	if err := s.keep(ctx, s.spans, records{spans: res.Spans}, res, req); err != nil {
		return nil, err
	}
	out := &collectortrace.ExportTraceServiceResponse{}
	if n := res.Rejected(); n > 0 {
		out.PartialSuccess = &collectortrace.ExportTracePartialSuccess{RejectedSpans: int64(n), ErrorMessage: explain(res)}
	}
	return out, nil
}

type logsService struct {
	collectorlogs.UnimplementedLogsServiceServer
	*receiver
}

// Export implements the OTLP logs service for the edge's access log.
func (s logsService) Export(ctx context.Context, req *collectorlogs.ExportLogsServiceRequest) (*collectorlogs.ExportLogsServiceResponse, error) {
	res := s.convert.Logs(req, time.Now(), s.random)
	if err := s.keep(ctx, s.spans, records{spans: res.Spans}, res, req); err != nil {
		return nil, err
	}
	out := &collectorlogs.ExportLogsServiceResponse{}
	if n := res.Rejected(); n > 0 {
		out.PartialSuccess = &collectorlogs.ExportLogsPartialSuccess{RejectedLogRecords: int64(n), ErrorMessage: explain(res)}
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
	if err := s.keep(ctx, s.points, records{points: res.Points}, res, req); err != nil {
		return nil, err
	}
	out := &collectormetrics.ExportMetricsServiceResponse{}
	if n := res.Rejected(); n > 0 {
		out.PartialSuccess = &collectormetrics.ExportMetricsPartialSuccess{RejectedDataPoints: int64(n), ErrorMessage: explain(res)}
	}
	return out, nil
}

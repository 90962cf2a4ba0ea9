package ingest

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// maxRequests bounds requests over HTTP that are being read or stored; further ones are
// told to come back.
const maxRequests = 64

// Content types of OTLP over HTTP. A browser asks first before it sends one of them to
// another origin, and gets no leave here, so a page cannot write telemetry.
const (
	typeProto = "application/x-protobuf"
	typeJSON  = "application/json"
)

// serveHTTP takes OTLP over HTTP (OTLP 1.9, "OTLP/HTTP") until ctx is done and every
// request has been answered, or drain is over.
func serveHTTP(ctx context.Context, listener net.Listener, r *receiver, drain time.Duration) error {
	slots := semaphore.NewWeighted(maxRequests)
	server := &http.Server{Handler: httpHandler(r, slots), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve telemetry over HTTP: %w", err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := server.Shutdown(end)
	if err != nil {
		err = server.Close()
	}
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	// A cut connection does not end its handler, which may still submit.
	_ = slots.Acquire(context.Background(), maxRequests)
	return err
}

func httpHandler(r *receiver, slots *semaphore.Weighted) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/traces", endpoint(r, slots, func(ctx context.Context, b []byte) (proto.Message, error) {
		return traceService{receiver: r}.Export(ctx, string(b))
	}, func(b []byte) ([]byte, error) {
		req := ptraceotlp.NewExportRequest()
		return transcode(b, req.UnmarshalJSON, req.MarshalProto)
	}))
	mux.Handle("POST /v1/metrics", endpoint(r, slots, decoded(metricsService{receiver: r}.Export, &collectormetrics.ExportMetricsServiceRequest{}), func(b []byte) ([]byte, error) {
		req := pmetricotlp.NewExportRequest()
		return transcode(b, req.UnmarshalJSON, req.MarshalProto)
	}))
	mux.Handle("POST /v1/logs", endpoint(r, slots, decoded(logsService{receiver: r}.Export, &collectorlogs.ExportLogsServiceRequest{}), func(b []byte) ([]byte, error) {
		req := plogotlp.NewExportRequest()
		return transcode(b, req.UnmarshalJSON, req.MarshalProto)
	}))
	return mux
}

// transcode turns OTLP's JSON, which is not that of protobuf (ids are hex), into its binary form.
func transcode(b []byte, unmarshal func([]byte) error, marshal func() ([]byte, error)) ([]byte, error) {
	if err := unmarshal(b); err != nil {
		return nil, err
	}
	return marshal()
}

// decoded lets a service's method take a message as it came.
func decoded[Req, Res proto.Message](export func(context.Context, Req) (Res, error), empty Req) func(context.Context, []byte) (proto.Message, error) {
	return func(ctx context.Context, raw []byte) (proto.Message, error) {
		req, _ := empty.ProtoReflect().New().Interface().(Req)
		if err := proto.Unmarshal(raw, req); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		return export(ctx, req)
	}
}

// endpoint is one signal over HTTP: its body goes to export as a message of gRPC would.
// Errors have the codes of gRPC, and of HTTP those that make a sender do the same.
func endpoint(r *receiver, slots *semaphore.Weighted, export func(context.Context, []byte) (proto.Message, error), fromJSON func([]byte) ([]byte, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		contentType, _, _ := mime.ParseMediaType(hr.Header.Get("Content-Type"))
		if contentType != typeProto && contentType != typeJSON {
			fail(w, typeJSON, http.StatusUnsupportedMediaType, codes.InvalidArgument, "content type must be "+typeProto+" or "+typeJSON)
			return
		}
		if !slots.TryAcquire(1) {
			fail(w, contentType, http.StatusServiceUnavailable, codes.Unavailable, "too many requests at a time")
			return
		}
		defer slots.Release(1)
		body, code, err := readBody(w, hr, r.cfg.MaxMessage)
		if err != nil {
			fail(w, contentType, code, codes.InvalidArgument, err.Error())
			return
		}
		if contentType == typeJSON {
			if body, err = fromJSON(body); err != nil {
				fail(w, contentType, http.StatusBadRequest, codes.InvalidArgument, err.Error())
				return
			}
		}
		res, err := export(hr.Context(), body)
		if err != nil {
			st := status.Convert(err)
			fail(w, contentType, httpCode(st.Code()), st.Code(), st.Message())
			return
		}
		answer(w, contentType, http.StatusOK, res)
	})
}

// readBody reads a body of at most limit bytes, also after unpacking; code says over HTTP
// what is wrong.
func readBody(w http.ResponseWriter, r *http.Request, limit int) (body []byte, code int, err error) {
	var in io.Reader = http.MaxBytesReader(w, r.Body, int64(limit))
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, http.StatusBadRequest, fmt.Errorf("body is not gzip: %w", err)
		}
		in = io.LimitReader(z, int64(limit)+1)
	default:
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("content encoding %q is not known, gzip is", encoding)
	}
	body, err = io.ReadAll(in)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge) || len(body) > limit:
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("body has more than %d bytes", limit)
	case err != nil:
		return nil, http.StatusBadRequest, fmt.Errorf("read body: %w", err)
	}
	return body, 0, nil
}

// httpCode makes a sender try again, or not, as the code of gRPC does.
func httpCode(c codes.Code) int {
	switch c {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return http.StatusServiceUnavailable
	case codes.InvalidArgument:
		return http.StatusBadRequest
	case codes.ResourceExhausted: // here always for good, and 429 is not
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}

func fail(w http.ResponseWriter, contentType string, code int, c codes.Code, message string) {
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	answer(w, contentType, code, status.New(c, message).Proto())
}

// answer writes m in the encoding that the request had.
func answer(w http.ResponseWriter, contentType string, code int, m proto.Message) {
	marshal := proto.Marshal
	if contentType == typeJSON {
		marshal = protojson.Marshal
	}
	raw, err := marshal(m)
	if err != nil { // our own messages have nothing that cannot be written
		code, raw = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(raw)
}

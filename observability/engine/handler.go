package engine

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func (s *server) mux() http.Handler {
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Ok.\n") }
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", ok)
	mux.HandleFunc("GET /healthz", ok)
	mux.HandleFunc("GET /readyz", ok) // it listens once the engine is open
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("/{$}", s.handle)
	return mux
}

// handle answers one request; its errors are written in ClickHouse's form.
func (s *server) handle(w http.ResponseWriter, h *http.Request) {
	if err := authenticate(h, s.cfg.User, s.cfg.Password); err != nil {
		s.metrics.refused.WithLabelValues("authentication").Inc()
		w.Header().Set("WWW-Authenticate", `Basic realm="ClickHouse"`)
		s.fail(w, err)
		return
	}
	r, err := parseRequest(h.URL.Query(), h.Header)
	if err != nil {
		s.metrics.refused.WithLabelValues("request").Inc()
		s.fail(w, err)
		return
	}
	if h.Method != http.MethodPost {
		if r.sql == "" {
			_, _ = io.WriteString(w, "Ok.\n")
			return
		}
		r.settings["readonly"] = "2" // as in ClickHouse: only POST may change data
	}
	w.Header().Set("X-ClickHouse-Server-Display-Name", "tracegate")
	w.Header().Set("X-ClickHouse-Timezone", s.timezone)
	w.Header().Set("X-ClickHouse-Query-Id", r.queryID)
	if err := s.gate.enter(h.Context()); err != nil {
		s.metrics.refused.WithLabelValues("busy").Inc()
		s.fail(w, err)
		return
	}
	defer s.gate.leave()
	s.run(w, h, r)
}

// run reads the statement and runs it under a watch that ends it when the client goes.
func (s *server) run(w http.ResponseWriter, h *http.Request, r request) {
	body, err := s.body(w, h, r)
	if err != nil {
		s.fail(w, err)
		return
	}
	inBody := r.sql == ""
	if inBody {
		if r.sql, err = s.text(body); err != nil {
			s.fail(w, err)
			return
		}
	}
	if strings.TrimSpace(r.sql) == "" {
		s.fail(w, newException(codeSyntaxError, "SYNTAX_ERROR", "Empty query"))
		return
	}
	out := newOutput(w, r, h.Header.Get("Accept-Encoding"))
	if strings.TrimSpace(r.sql) == helloSQL && r.revision > 0 {
		s.hello(out, r)
		return
	}
	st := parseStatement(r.sql)
	if inBody && st.kind == kindInsert { // INSERT ... FORMAT x with nothing after it
		s.fail(w, newException(108, "NO_DATA_TO_INSERT", "No data to insert"))
		return
	}
	if st.kind == kindRead && (st.format != "" || !streams(r.format)) {
		st.kind = kindOther
	}
	start := time.Now()
	err = s.execute(h.Context(), out, r, st, body, inBody)
	s.observe(st.kind, time.Since(start), err)
	if err == nil {
		return
	}
	if out.started {
		out.abort(asException(err))
	}
	s.fail(w, err)
}

// execute runs one statement and writes its result to out.
func (s *server) execute(ctx context.Context, out *output, r request, st statement, body io.Reader, inBody bool) error {
	conn, tag, err := s.open(r)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer s.watch(ctx, tag)()
	start := time.Now()
	switch st.kind {
	case kindInsert:
		rows, err := conn.Insert(st.head, st.format, body)
		if err != nil {
			return err
		}
		s.metrics.written.Add(float64(rows))
		summarize(out.w, summary{WrittenRows: rows}, start)
		return nil
	case kindRead:
		out.w.Header().Set("X-ClickHouse-Format", r.format)
		out.w.Header().Set("Content-Type", "application/octet-stream")
		err := conn.Stream(r.sql, r.format, r.params, func(piece []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			_, err := out.Write(piece)
			return err
		})
		if err != nil {
			return err
		}
		return out.close()
	}
	sql := r.sql
	if !inBody { // data of an INSERT ... VALUES may follow in the body
		data, err := s.text(body)
		if err != nil {
			return err
		}
		if data != "" {
			sql += "\n" + data
		}
	}
	res, err := conn.Query(sql, r.format, r.params)
	if err != nil {
		return err
	}
	defer res.Free()
	s.metrics.written.Add(float64(res.WrittenRows()))
	summarize(out.w, summary{res.ReadRows(), res.ReadBytes(), res.WrittenRows(), res.WrittenBytes()}, start)
	if b := res.Bytes(); len(b) > 0 {
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	return out.close()
}

// streams says whether pieces of a result in this format, one after another, are the
// result: true of formats without header and footer.
func streams(format string) bool {
	switch format {
	case "Native", "RowBinary", "TabSeparated", "TSV", "CSV", "JSONEachRow":
		return true
	}
	return false
}

// body is the request's body, decompressed and bounded.
func (s *server) body(w http.ResponseWriter, h *http.Request, r request) (io.Reader, error) {
	var body io.Reader = http.MaxBytesReader(w, h.Body, s.cfg.MaxBody)
	switch enc := h.Header.Get("Content-Encoding"); enc {
	case "", "identity":
	case "gzip":
		gz, err := gzip.NewReader(body)
		if err != nil {
			return nil, newException(codeCannotRead, "CANNOT_READ_ALL_DATA", "Content-Encoding gzip: %s", err)
		}
		body = gz
	default:
		return nil, newException(codeNotImplemented, "NOT_IMPLEMENTED", "Content-Encoding %s: only gzip is known", enc)
	}
	if r.decompress {
		body = compress.NewReader(body)
	}
	return &bounded{r: body, left: s.cfg.MaxBody}, nil
}

// text reads SQL from the body.
func (s *server) text(body io.Reader) (string, error) {
	b, err := io.ReadAll(&bounded{r: body, left: s.cfg.MaxQuery})
	if err != nil && !errors.Is(err, io.EOF) { // the decompressing reader wraps io.EOF
		return "", err
	}
	return string(b), nil
}

// bounded fails instead of ending where there is more than left, so that a statement
// or an INSERT is never cut short silently.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	var tooLarge *http.MaxBytesError
	if b.left < 0 || errors.As(err, &tooLarge) {
		return 0, newException(codeTooManyBytes, "TOO_MANY_BYTES", "The request's body or statement is larger than this server accepts")
	}
	return n, err
}

func (s *server) hello(out *output, r request) {
	b, err := hello(s.version, s.timezone, r.revision)
	if err == nil {
		_, err = out.Write(b)
	}
	if err == nil {
		err = out.close()
	}
	if err != nil && !out.started {
		s.fail(out.w, err)
	}
}

// fail writes err with its status. Nothing may have been written before.
func (s *server) fail(w http.ResponseWriter, err error) {
	e := asException(unwrapException(err))
	w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.code))
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(e.status())
	_, _ = fmt.Fprintf(w, "%s (version %s (chDB %s))\n", e.message, s.version, s.lib.Version())
}

// unwrapException finds the exception in an error that was wrapped on its way.
func unwrapException(err error) error {
	var e *exception
	if errors.As(err, &e) {
		return e
	}
	return err
}

func (s *server) observe(k kind, took time.Duration, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	s.metrics.queries.WithLabelValues(string(k), outcome).Inc()
	s.metrics.seconds.WithLabelValues(string(k)).Observe(took.Seconds())
}

// summary is ClickHouse's X-ClickHouse-Summary header.
type summary struct {
	ReadRows     uint64 `json:"read_rows,string"`
	ReadBytes    uint64 `json:"read_bytes,string"`
	WrittenRows  uint64 `json:"written_rows,string"`
	WrittenBytes uint64 `json:"written_bytes,string"`
}

func summarize(w http.ResponseWriter, s summary, start time.Time) {
	b, err := json.Marshal(struct {
		summary
		Elapsed int64 `json:"elapsed_ns,string"`
	}{s, time.Since(start).Nanoseconds()})
	if err == nil {
		w.Header().Set("X-ClickHouse-Summary", string(b))
	}
}

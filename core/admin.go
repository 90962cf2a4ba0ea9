package core

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tracegate/tracegate/core/fault"
	"github.com/tracegate/tracegate/core/protocol"
)

// admin is the handler of the admin listener. Health and metrics are open to this
// machine; what changes or shows users needs the token.
func (p *process) admin(reg *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !p.ready.Load() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("POST /v1/fault", p.withToken(p.setFault))
	mux.HandleFunc("DELETE /v1/fault", p.withToken(p.clearFault))
	mux.HandleFunc("GET /v1/sockets", p.withToken(p.sockets))
	mux.HandleFunc("POST /v1/collect", p.withToken(collect))
	return mux
}

// withToken compares in constant time; hashing makes the lengths equal.
func (p *process) withToken(next http.HandlerFunc) http.HandlerFunc {
	want := sha256.Sum256([]byte(p.cfg.Token))
	return func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
		if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
			respond(w, http.StatusUnauthorized, protocol.NewError(protocol.CodeUnauthenticated, "", "control token is missing or wrong"))
			return
		}
		next(w, r)
	}
}

// faultBody is what POST /v1/fault takes.
type faultBody struct {
	LatencyMS  int64   `json:"latency_ms"`
	ErrorRatio float64 `json:"error_ratio"`
	Dial       string  `json:"dial,omitempty"`
	ForMS      int64   `json:"for_ms"`
}

func (p *process) setFault(w http.ResponseWriter, r *http.Request) {
	var in faultBody
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
	d.DisallowUnknownFields()
	err := d.Decode(&in)
	f := fault.Fault{ErrorRatio: in.ErrorRatio, Dial: in.Dial}
	if err == nil {
		f.Latency, err = milliseconds("latency_ms", in.LatencyMS)
	}
	if err == nil {
		f.For, err = milliseconds("for_ms", in.ForMS)
	}
	if err == nil {
		err = f.Validate()
	}
	if err != nil {
		field, _, _ := strings.Cut(err.Error(), ":")
		respond(w, http.StatusBadRequest, protocol.NewError(protocol.CodeInvalidArgument, field, err.Error()))
		return
	}
	until := p.fault.Set(f)
	p.log.Warn("fault injected", "latency", f.Latency, "error_ratio", f.ErrorRatio, "dial", f.Dial, "until", until)
	respond(w, http.StatusOK, map[string]any{"until": until.UTC()})
}

// milliseconds refuses what would overflow a duration.
func milliseconds(field string, n int64) (time.Duration, error) {
	const longest = int64(24 * time.Hour / time.Millisecond)
	if n < 0 || n > longest {
		return 0, errors.New(field + ": is out of range")
	}
	return time.Duration(n) * time.Millisecond, nil
}

func (p *process) clearFault(w http.ResponseWriter, _ *http.Request) {
	p.fault.Clear()
	p.log.Info("fault cleared")
	w.WriteHeader(http.StatusNoContent)
}

func (p *process) sockets(w http.ResponseWriter, _ *http.Request) {
	if !p.ready.Load() { // and so p.hub is set
		respond(w, http.StatusServiceUnavailable, protocol.NewError(protocol.CodeUnavailable, "", "not ready"))
		return
	}
	respond(w, http.StatusOK, p.hub.Groups())
}

// collect gives back all memory that is free, so that what is left at /metrics is what is
// used: pools are emptied by the second collection, and stacks shrink by half with each.
func collect(w http.ResponseWriter, _ *http.Request) {
	for range 3 {
		debug.FreeOSMemory()
	}
	w.WriteHeader(http.StatusNoContent)
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that has gone is no error of ours
}

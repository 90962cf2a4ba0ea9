package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// HeaderNode names the process that served a request.
const HeaderNode = "x-traffic-node"

// Cookie is the name of the cookie that carries the access token.
const Cookie = "tracegate_session"

// handler is an http.HandlerFunc that leaves errors to its caller.
type handler func(http.ResponseWriter, *http.Request) error

// authHandler is a handler of a request with a valid token.
type authHandler func(http.ResponseWriter, *http.Request, account.Identity) error

// catch answers for a handler that panics.
func (s *server) catch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			s.metrics.panics.Inc()
			s.deps.Log.Error("handler panicked", "panic", p, "path", r.URL.Path, "stack", string(debug.Stack()))
			writeError(w, protocol.NewError(protocol.CodeInternal, "", "internal error"))
		}()
		next.ServeHTTP(w, r)
	})
}

// baseline gives a request that the edge's filter has not seen (it failed open, or
// someone came around the edge) a trace of the baseline color, and takes away the ids
// and the baggage that the client made up.
func (s *server) baseline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !group.ID(r.Header.Get(semconv.HeaderGroup)).Valid() {
			r.Header.Del(semconv.HeaderGroup)
			r.Header.Del(semconv.HeaderTracestate)
			r.Header.Del(semconv.HeaderBaggage)
			r.Header.Set(semconv.HeaderTraceparent, baselineTraceparent())
		}
		next.ServeHTTP(w, r)
	})
}

func baselineTraceparent() string {
	var random [20]byte
	_, _ = rand.Read(random[:]) // never fails
	text := hex.EncodeToString(random[:])
	return "00-" + group.Baseline.String() + text[:24] + "-" + text[24:] + "-03"
}

func (s *server) name(w http.ResponseWriter) {
	w.Header().Set(semconv.HeaderPool, s.deps.Pool)
	w.Header().Set(HeaderNode, s.deps.Node)
}

// served says who serves the page.
func (s *server) served(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.name(w)
		next.ServeHTTP(w, r)
	})
}

// serve runs a handler: headers before, the error and the metrics after it.
func (s *server) serve(route string, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s.name(w)
		head := w.Header()
		head.Set("Cache-Control", "no-store")
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		code := "ok"
		if err := s.guard(r, func() error { return h(w, r) }); err != nil {
			code = string(s.fail(w, r, route, err))
		}
		s.metrics.requests.WithLabelValues(route, code).Inc()
		s.metrics.seconds.WithLabelValues(route).Observe(time.Since(start).Seconds())
	})
}

// guard refuses requests that a page of another site has made a browser send.
func (s *server) guard(r *http.Request, next func() error) error {
	if err := s.origins.Check(r); err != nil {
		return protocol.NewError(protocol.CodePermissionDenied, "origin", "request comes from another site")
	}
	return next()
}

// fail answers with what the client may see.
func (s *server) fail(w http.ResponseWriter, r *http.Request, route string, err error) protocol.Code {
	pe := s.refuse(r.Context(), route, err)
	writeError(w, pe)
	return pe.Code
}

// trouble does what an injected fault says.
func (s *server) trouble(ctx context.Context) error {
	if err := s.deps.Fault.Dial(ctx); err != nil {
		return protocol.NewError(protocol.CodeUnavailable, "", "injected fault: "+err.Error())
	}
	delay, fail := s.deps.Fault.Roll()
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fail {
		return protocol.NewError(protocol.CodeInternal, "", "injected fault")
	}
	return nil
}

// faulty is for a handler that is no operation of the API: it does what an injected
// fault says.
func (s *server) faulty(next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.trouble(r.Context()); err != nil {
			return err
		}
		return next(w, r)
	}
}

// authed is for a handler that is no operation of the API: it wants a valid token, by
// header or cookie, and keeps its user within the rate.
func (s *server) authed(next authHandler) handler { return s.authedBy(rule{}, next) }

func (s *server) authedBy(rule rule, next authHandler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.admit(r.Context(), rule); err != nil {
			return err
		}
		return next(w, r, caller(r.Context()))
	}
}

func token(r *http.Request) string {
	const scheme = "Bearer "
	if h := r.Header.Get("Authorization"); len(h) > len(scheme) && h[:len(scheme)] == scheme {
		return h[len(scheme):]
	}
	return cookieOf(r, Cookie)
}

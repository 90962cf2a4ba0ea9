package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/observability/semconv"
)

// upstream is one instance of the service, in one pool. It answers with the headers
// it got, and echoes WebSocket messages.
type upstream struct {
	*httptest.Server
	pool     string
	sockets  atomic.Int64
	requests atomic.Int64
	sick     atomic.Bool  // /healthz fails
	failing  atomic.Int64 // how many of the next requests get 503
	dropping atomic.Int64 // how many of the next requests get no answer, and their connection closed
}

// seen is the upstream's answer.
type seen struct {
	Pool   string
	Path   string
	Host   string
	Header http.Header
}

func newUpstream(t *testing.T, pool string) *upstream {
	t.Helper()
	u := &upstream{pool: pool}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.CloseClientConnections)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) addr() string { return strings.TrimPrefix(u.URL, "http://") }

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(semconv.HeaderPool, u.pool)
	switch {
	case r.URL.Path == "/healthz":
		if u.sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	case websocket.IsWebSocketUpgrade(r):
		u.echo(w, r)
	default:
		u.requests.Add(1)
		if !stay(r) {
			return
		}
		if u.failing.Add(-1) >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if u.dropping.Add(-1) >= 0 {
			panic(http.ErrAbortHandler)
		}
		_ = json.NewEncoder(w).Encode(seen{Pool: u.pool, Path: r.URL.Path, Host: r.Host, Header: r.Header})
	}
}

// stay holds an answer back for as long as the client asks by x-stay, or until it
// has gone.
func stay(r *http.Request) bool {
	d, err := time.ParseDuration(r.Header.Get("X-Stay"))
	if err != nil {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
		return false
	}
}

func (u *upstream) echo(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := up.Upgrade(w, r, http.Header{semconv.HeaderPool: {u.pool}})
	if err != nil {
		return
	}
	defer conn.Close()
	u.sockets.Add(1)
	defer u.sockets.Add(-1)
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil || conn.WriteMessage(kind, message) != nil {
			return
		}
	}
}

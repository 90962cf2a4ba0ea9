package sockets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
)

// product answers as core does, as far as the lab asks, and counts who comes.
type product struct {
	t        *testing.T
	busy     atomic.Int64 // connections that are told to come back first
	deaf     atomic.Bool  // pings are not answered
	hangs    atomic.Bool  // connections end with the first ping
	open     atomic.Int64
	from     atomic.Int64 // connections that came from another address than 127.0.0.1
	collects atomic.Int64
}

func (p *product) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "POST /v1/users":
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"id":"1","name":"ann"}`)
	case "POST /v1/sessions":
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"token":"t","expires_at":"2100-01-01T00:00:00Z","user":{"id":"1","name":"ann"}}`)
	case "POST /v1/conversations":
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"id":"c"}`)
	case "POST /v1/conversations/c/messages":
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"client_id":"hello"}`)
	case "GET /metrics":
		fmt.Fprintf(w, "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %d\n# TYPE go_memstats_heap_alloc_bytes gauge\ngo_memstats_heap_alloc_bytes %d\n"+
			"# TYPE go_memstats_stack_inuse_bytes gauge\ngo_memstats_stack_inuse_bytes %d\n# TYPE go_gc_duration_seconds summary\ngo_gc_duration_seconds_sum 1\ngo_gc_duration_seconds_count 7\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 3\n# TYPE core_sockets gauge\ncore_sockets %d\n",
			5<<20+p.open.Load()*4096, p.open.Load()*2048, p.open.Load()*1024, p.open.Load())
	case "POST /v1/collect":
		p.collects.Add(1)
		w.WriteHeader(http.StatusNoContent)
	case "GET /v1/ws":
		p.socket(w, r)
	default:
		p.t.Errorf("asked for %s %s", r.Method, r.URL.Path)
	}
}

func (p *product) socket(w http.ResponseWriter, r *http.Request) {
	if p.busy.Add(-1) >= 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"code":"unavailable","message":"come back","temporary":true}`)
		return
	}
	if !strings.HasPrefix(r.RemoteAddr, "127.0.0.1:") {
		p.from.Add(1)
	}
	up := websocket.Upgrader{}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer ws.Close()
	p.open.Add(1)
	defer p.open.Add(-1)
	var cmd protocol.Command
	err = errors.Join(ws.WriteJSON(protocol.Frame{Hello: &protocol.Hello{Epoch: "e"}}), ws.ReadJSON(&cmd))
	if err != nil || cmd.Resume == nil || cmd.Resume.Epoch != "e" || cmd.Resume.Positions["c"] != 1 {
		p.t.Errorf("%v %+v", err, cmd)
	}
	_ = ws.WriteJSON(protocol.Frame{ID: cmd.ID, Resumed: &protocol.Resumed{Recovered: true}})
	answer := ws.PingHandler()
	ws.SetPingHandler(func(data string) error {
		switch {
		case p.hangs.Load():
			return io.EOF
		case p.deaf.Load():
			return nil
		}
		return answer(data)
	})
	for {
		if _, _, err := ws.NextReader(); err != nil {
			return
		}
	}
}

// run gives a made-up product connections for a second.
func run(t *testing.T, p *product, edit func(*Config)) (Report, error) {
	t.Helper()
	p.t = t
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	cfg := DefaultConfig()
	cfg.Door, cfg.Cores = server.URL, map[string]string{"baseline": server.URL}
	cfg.Connections, cfg.PerUser, cfg.Sources, cfg.Pings, cfg.Duration, cfg.Settle, cfg.Format = 20, 4, 4, 200, time.Second, 0, "json"
	if edit != nil {
		edit(&cfg)
	}
	var out bytes.Buffer
	r, err := Run(t.Context(), cfg, &out, slog.New(slog.DiscardHandler))
	if err == nil && cfg.Format == "json" {
		var back Report
		if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.OK != r.OK || back.Schema != Schema {
			t.Errorf("%v: %s", err, out.String())
		}
	}
	return r, err
}

func TestRun(t *testing.T) {
	p := &product{}
	p.busy.Store(5)
	r, err := run(t, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK || r.Opened.Connections != 20 || r.Pings.Answered != 200 || r.Lost != 0 {
		t.Errorf("%+v", r)
	}
	if p.collects.Load() != 3 || p.from.Load() == 0 {
		t.Errorf("%d collections, %d connections from other addresses", p.collects.Load(), p.from.Load())
	}
	if m := r.Memory; m.RSS != 4 || m.Heap != 2 || m.Stacks != 1 || m.AfterPings != 4 {
		t.Errorf("%+v", m)
	}
}

// TestPromisesBreak, each by what breaks it.
func TestPromisesBreak(t *testing.T) {
	soon := func(c *Config) { c.Wait = 100 * time.Millisecond } // nothing comes, however long one waits
	for want, c := range map[string]struct {
		broken func(*product)
		edit   func(*Config)
	}{
		"answered": {broken: func(p *product) { p.deaf.Store(true) }, edit: soon},
		"kept":     {broken: func(p *product) { p.hangs.Store(true) }, edit: soon},
		"memory":   {edit: func(c *Config) { c.Connections, c.Pings, c.MaxKB = few, 1000, 3.9 }},
	} {
		t.Run(want, func(t *testing.T) {
			p := &product{}
			if c.broken != nil {
				c.broken(p)
			}
			r, err := run(t, p, c.edit)
			if err != nil {
				t.Fatal(err)
			}
			broken := map[string]bool{}
			for _, promise := range r.Promises {
				broken[promise.Key] = !promise.Held
			}
			if r.OK || !broken[want] || broken["opened"] {
				t.Errorf("broken: %v of %+v", broken, r)
			}
		})
	}
}

func TestConfigNamesTheKey(t *testing.T) {
	for want, edit := range map[string]func(*Config){
		"connections:":     func(c *Config) { c.Connections = 900 },
		"per-user:":        func(c *Config) { c.PerUser = 0 },
		"sources:":         func(c *Config) { c.Sources = 251 },
		"pings:":           func(c *Config) { c.Pings = 0 },
		"duration:":        func(c *Config) { c.Duration = 0 },
		"pings, duration:": func(c *Config) { c.Duration = time.Hour },
		"settle:":          func(c *Config) { c.Settle = -1 },
		"wait:":            func(c *Config) { c.Wait = -1 },
		"max-kb:":          func(c *Config) { c.MaxKB = -1 },
		"output:":          func(c *Config) { c.Format = "xml" },
	} {
		cfg := DefaultConfig()
		cfg.Connections = 100
		edit(&cfg)
		if err := cfg.Validate(1000); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
	if _, err := run(t, &product{}, func(c *Config) { c.Door = "http://192.0.2.1" }); err == nil || !strings.Contains(err.Error(), "not on this machine") {
		t.Errorf("another machine: %v", err)
	}
}

// TestCost counts only processes that have got connections.
func TestCost(t *testing.T) {
	base := snapshot{cores: map[string]usage{"a": {rss: 1000}, "b": {rss: 5000}}, kernel: 0, known: true}
	idle := snapshot{cores: map[string]usage{"a": {rss: 1000 + 10240, sockets: 10, collections: 1}, "b": {rss: 9000}}, kernel: 20480, known: true}
	after := snapshot{cores: map[string]usage{"a": {rss: 1000 + 20480, sockets: 10}, "b": {rss: 1}}}
	busy := map[string]usage{"a": {collections: 3, cpu: 0.001}, "b": {collections: 50}}
	m, collections, cpu := cost(base, idle, after, busy, 10, Pings{Sent: 100, Answered: 100, PerSecond: 50})
	if m.RSS != 1 || m.AfterPings != 2 || m.Kernel == nil || *m.Kernel != 2 || collections != 10 || int(cpu+0.5) != 10 {
		t.Errorf("%+v %v %v", m, collections, cpu)
	}
}

func TestReportForPeople(t *testing.T) {
	r := Report{Memory: Memory{RSS: 5.87}, Lost: 1, Example: "reset by peer"}
	r.judge(Config{Connections: 5, MaxKB: 1})
	var out bytes.Buffer
	if err := r.Write(&out, "text"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"5.87 KB", "lost: reset by peer", "BROKEN  none is lost"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if len(r.Promises) != 3 {
		t.Errorf("few connections are judged by their memory: %+v", r.Promises)
	}
}

package controlplane

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// upstream is an instance that says its name, or says everything twice by WebSocket.
func upstream(t *testing.T, name string) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-instance", name)
		if r.Header.Get("Upgrade") == "" {
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nx-instance: %s\r\n\r\n", name)
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw) // ends with the edge's connection
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// socket is a WebSocket through an edge, as far as an edge looks at one.
type socket struct {
	net.Conn
	r *bufio.Reader
}

func dialSocket(t *testing.T, edge string) (s socket, at string) {
	t.Helper()
	conn, err := net.Dial("tcp", edge)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "GET /v1/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", edge)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %+v, %v", resp, err)
	}
	return socket{conn, r}, resp.Header.Get("x-instance")
}

// works says whether what is written comes back.
func (s socket) works(text string) error {
	if _, err := io.WriteString(s, text+"\n"); err != nil {
		return err
	}
	got, err := s.r.ReadString('\n')
	if err == nil && got != text+"\n" {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

// TestDrainAtRealEnvoy: from when the edge has acknowledged it no request goes to an
// instance that drains, sockets that are open there go on, and it serves again afterwards.
func TestDrainAtRealEnvoy(t *testing.T) {
	envoytest.Binary(t)
	one, two, other := upstream(t, "one"), upstream(t, "two"), upstream(t, "other")
	cfg := testConfig(t)
	cfg.AckTimeout = 5 * time.Second
	cfg.Edge.Listen = freeport.ForTest(t)
	write(t, cfg.Endpoints, fmt.Sprintf("services: {core: {baseline: [%q, %q], canary: [%q], isolated: [%q]}}\n", one, two, other, other))
	p := run(t, cfg, newWorld())
	boot := bootstrap.DefaultConfig()
	boot.XDS = p.xds
	envoytest.StartADS(t, boot).WaitReady(t)
	before := p.status("programmed", acked)

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	ask := func() string {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+cfg.Edge.Listen+"/v1/me", nil)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d", resp.StatusCode)
		}
		return resp.Header.Get("x-instance")
	}
	both := func(what string) {
		t.Helper()
		seen := map[string]bool{}
		eventually(t, what, func() bool { seen[ask()] = true; return seen["one"] && seen["two"] }, func() any { return seen })
	}
	both("both serve")
	var sockets []socket // that are open at the first
	eventually(t, "sockets at the first", func() bool {
		if s, at := dialSocket(t, cfg.Edge.Listen); at == "one" {
			sockets = append(sockets, s)
		}
		return len(sockets) == 3
	}, func() any { return len(sockets) })

	order := ctlapi.DrainOrder{Service: "core", Pool: "baseline", Instance: one, Reason: "new kernel"}
	if _, err := p.api.Drain(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	p.status("drains", func(s ctlapi.Status) bool { return acked(s) && s.Version != before.Version })
	eventually(t, "the edge's workers have what it has acknowledged", func() bool {
		for range 20 {
			if ask() != "two" {
				return false
			}
		}
		return true
	}, func() any { return nil })
	for range 200 {
		if at := ask(); at != "two" {
			t.Fatalf("a request went to %s", at)
		}
	}
	for i, s := range sockets {
		if err := s.works(fmt.Sprint("hello ", i)); err != nil {
			t.Errorf("socket %d: %v", i, err)
		}
	}
	if _, at := dialSocket(t, cfg.Edge.Listen); at != "two" {
		t.Errorf("a socket went to %s", at)
	}

	if _, err := p.api.Undrain(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	p.status("undone", func(s ctlapi.Status) bool { return acked(s) && s.Version == before.Version })
	both("both serve again")
	for i, s := range slices.Backward(sockets) {
		if err := s.works(fmt.Sprint("still there ", i)); err != nil {
			t.Errorf("socket %d: %v", i, err)
		}
	}
}

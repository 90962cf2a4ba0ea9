package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tracegate/tracegate/edge/bootstrap"
)

// TestHardened holds a running edge to docs/hardening.md, together with the tests that
// the page names: what an attacker can try is tried, and settings that only show under a
// real attack are read from the running Envoy.
func TestHardened(t *testing.T) {
	const connections = 20
	s := newSecuredWith(t, func(c *bootstrap.Config) {
		c.MaxConnections, c.MaxHeapBytes = connections, 256<<20
	})
	run := func(name string, test func(*testing.T, *secured)) {
		t.Run(name, func(t *testing.T) {
			s.t = t
			defer func() { s.t = s.root }()
			test(t, s)
		})
	}
	run("admin interface is on loopback", testAdminLoopback)
	run("overload manager", testOverload)
	run("settings in force", testSettings)
	run("HTTP/2 limits", testHTTP2Limits)
	run("requests that two parties read differently", testSmuggling)
	run("paths", testPaths)
	run("server header", testServerHeader)
	run("connections are bounded", func(t *testing.T, s *secured) { testConnections(t, s, connections) })
}

func newSecuredWith(t *testing.T, change func(*bootstrap.Config)) *secured {
	t.Helper()
	return newSecured(t, func(s *stack) { unfiltered(s); s.edge.TLS.HTTP3, s.boot = true, change })
}

// dump is the running Envoy's configuration as text without white space, to look for
// settings in.
func (s *secured) dump() string {
	s.t.Helper()
	raw, err := s.envoy.Admin().ConfigDump(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		s.t.Fatal(err)
	}
	tight, err := json.Marshal(v) // keys sorted
	if err != nil {
		s.t.Fatal(err)
	}
	return string(tight)
}

func testAdminLoopback(t *testing.T, s *secured) {
	if !strings.Contains(s.dump(), `"admin":{"address":{"socket_address":{"address":"127.0.0.1"`) {
		t.Error("the admin interface listens elsewhere")
	}
	if resp := s.get("chat.test", "/quitquitquit"); resp.Header.Get("X-Traffic-Pool") == "" {
		t.Errorf("an admin path is not answered by the upstream but with %d", resp.StatusCode)
	}
}

func testOverload(t *testing.T, s *secured) {
	for _, stat := range []string{
		`^overload\.envoy\.resource_monitors\.fixed_heap\.pressure$`,
		`^overload\.envoy\.overload_actions\.shrink_heap\.active$`,
		`^overload\.envoy\.overload_actions\.stop_accepting_requests\.active$`,
	} {
		stats, err := s.envoy.Admin().Stats(t.Context(), stat)
		if err != nil || len(stats) != 1 {
			t.Errorf("%s: %v, %v", stat, stats, err)
		}
	}
	waitFor(t, "the heap to be measured", func() bool { return s.stat(`^overload\.envoy\.resource_monitors\.fixed_heap\.pressure$`) > 0 })
}

// testSettings reads what takes minutes, or a broken peer, to see.
func testSettings(t *testing.T, s *secured) {
	dump := s.dump()
	for what, want := range map[string]string{
		"listener buffer":          `"per_connection_buffer_limit_bytes":32768`,
		"one accept an event":      `"max_connections_to_accept_per_socket_event":1`,
		"client is the peer":       `"use_remote_address":true`,
		"headers timeout":          `"request_headers_timeout":"10s"`,
		"request timeout":          `"request_timeout":"60s"`,
		"stream idle timeout":      `"stream_idle_timeout":"300s"`,
		"connection idle timeout":  `"common_http_protocol_options":{"headers_with_underscores_action":"REJECT_REQUEST","idle_timeout":"3600s","max_headers_count":100}`,
		"handshake timeout":        `"transport_socket_connect_timeout":"10s"`,
		"connect timeout":          `"connect_timeout":"5s"`,
		"circuit breakers":         `"max_connections":20000,"max_pending_requests":4096,"max_requests":20000,"max_retries":1024`,
		"regular expressions":      `"re2.max_program_size.error_level":200`,
		"full, admin still speaks": `"ignore_global_conn_limit":true`,
		"early data is off":        `"enable_early_data":false`,
	} {
		if !strings.Contains(dump, want) {
			t.Errorf("%s: %s is not in force", what, want)
		}
	}
}

// testHTTP2Limits reads the SETTINGS that the edge begins with.
func testHTTP2Limits(t *testing.T, s *secured) {
	conn, err := tls.Dial("tcp", s.edge.TLS.Listen, &tls.Config{RootCAs: s.roots, ServerName: "chat.test", NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	got, window := map[http2.SettingID]uint32{}, uint32(65535)
	for len(got) == 0 || window == 65535 {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("%v; so far %v, window %d", err, got, window)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			_ = f.ForeachSetting(func(st http2.Setting) error { got[st.ID] = st.Val; return nil })
		case *http2.WindowUpdateFrame:
			window += f.Increment
		}
	}
	if got[http2.SettingMaxConcurrentStreams] != 100 || got[http2.SettingInitialWindowSize] != 64<<10 || window != 1<<20 {
		t.Errorf("settings %v, connection window %d", got, window)
	}
}

// raw sends bytes as they are and returns the status of the answer; 0 where the
// connection was closed without one.
func (s *secured) raw(request string) int {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.edge.Listen)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func testSmuggling(t *testing.T, s *secured) {
	for name, request := range map[string]string{
		"two lengths":            "POST / HTTP/1.1\r\nHost: chat.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		"length and chunks":      "POST / HTTP/1.1\r\nHost: chat.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"unknown encoding":       "POST / HTTP/1.1\r\nHost: chat.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"space before the colon": "GET / HTTP/1.1\r\nHost: chat.test\r\nX-A : 1\r\n\r\n",
		"NUL in a header":        "GET / HTTP/1.1\r\nHost: chat.test\r\nX-A: 1\x002\r\n\r\n",
		"no host":                "GET / HTTP/1.1\r\n\r\n",
		"HTTP/1.0":               "GET / HTTP/1.0\r\nHost: chat.test\r\n\r\n",
	} {
		before := s.pools["baseline"].requests.Load()
		if code := s.raw(request); code != 0 && (code < 400 || code > http.StatusNotImplemented) {
			t.Errorf("%s: status %d", name, code)
		}
		if n := s.pools["baseline"].requests.Load(); n != before {
			t.Errorf("%s: reached the upstream", name)
		}
	}
}

func testPaths(t *testing.T, s *secured) {
	client := s.http("chat.test")
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for path, want := range map[string]string{"/a%2fb": "/a/b", "/a%5cb": "/a/b", "/a/%2e%2e%2fb": "/b"} {
		resp, err := client.Get("https://chat.test" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusTemporaryRedirect || !strings.HasSuffix(to, want) {
			t.Errorf("%s: status %d to %q, want %s", path, resp.StatusCode, to, want)
		}
	}
	if code := s.raw("GET /a%00b HTTP/1.1\r\nHost: chat.test\r\n\r\n"); code != http.StatusBadRequest {
		t.Errorf("NUL in a path: status %d", code)
	}
}

func testServerHeader(t *testing.T, s *secured) {
	if got := s.get("chat.test", "/").Header.Values("Server"); len(got) != 1 || got[0] != "tracegate" {
		t.Errorf("server %q", got)
	}
	for name := range s.get("chat.test", "/").Header {
		if strings.HasPrefix(name, "X-Envoy-") {
			t.Errorf("%s tells what the edge is made of", name)
		}
	}
}

// testConnections opens more than the edge takes, over both listeners; the admin
// interface still answers.
func testConnections(t *testing.T, s *secured, most int) {
	s.client.CloseIdleConnections()
	waitFor(t, "all to be closed", func() bool { return s.stat(`^server\.total_connections$`) <= 2 })
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	closed := 0
	ended := make(chan bool, 2*most)
	for i := range 2 * most {
		addr := s.edge.Listen
		if i%2 == 1 {
			addr = s.edge.TLS.Listen
		}
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			closed++
			continue
		}
		open = append(open, conn)
	}
	for _, conn := range open {
		go func() {
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			_, err := conn.Read(make([]byte, 1))
			ended <- err != nil && !isTimeout(err)
		}()
	}
	for range open {
		if <-ended {
			closed++
		}
	}
	if closed < most {
		t.Errorf("%d of %d connections were closed, the bound is %d", closed, 2*most, most)
	}
	if err := s.envoy.Admin().Ready(t.Context()); err != nil {
		t.Errorf("the admin interface of a full edge: %v", err)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

package client_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/edge/client/coretest"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

func TestHostHeaderAndServed(t *testing.T) {
	s := coretest.New()
	defer s.Close()
	cfg := config(s)
	cfg.Host = "payment.localhost"
	cfg.Header = http.Header{"Cookie": {"env=canary"}}
	u := login(t, cfg, "alice")
	want := group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}

	me, served, err := u.Me(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantServed := client.Served{Status: 200, Group: string(want.ID()), Pool: semconv.PoolCanary, Node: "canary-1"}
	if diff := cmp.Diff(wantServed, served); diff != "" {
		t.Errorf("served (-want +got):\n%s", diff)
	}
	if me.Tenant != "payment" || me.Env != "canary" || me.User.Name != "alice" {
		t.Errorf("me = %+v", me)
	}
	p := connect(t, u, nil)
	if h, _ := p.Hello(); h.Group != string(want.ID()) || h.Pool != semconv.PoolCanary {
		t.Errorf("hello = %+v, want the same group and pool", h)
	}
}

func TestLocalAddress(t *testing.T) {
	var from atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		from.Store(host)
		w.Write([]byte("{}"))
	}))
	defer s.Close()
	if l, err := net.Listen("tcp", "127.0.0.9:0"); err != nil {
		t.Skipf("no second loopback address here: %v", err)
	} else {
		l.Close()
	}
	cfg := client.DefaultConfig()
	cfg.Address, cfg.LocalAddress = s.URL, "127.0.0.9"
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Register(t.Context(), "alice", "secret"); err != nil {
		t.Fatal(err)
	}
	if from.Load() != "127.0.0.9" {
		t.Errorf("came from %v, want 127.0.0.9", from.Load())
	}
}

// What is repeated, and what a caller is told of answers that are not core's.
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		name     string
		status   int
		body     string
		call     string
		attempts int32
		code     protocol.Code
		unknown  bool
	}{
		{"edge has no upstream", 503, "no healthy upstream", "me", 3, protocol.CodeUnavailable, true},
		{"edge has no route", 404, "", "me", 1, protocol.CodeNotFound, false},
		{"core refuses", 403, `{"code":"permission_denied","message":"no"}`, "me", 1, protocol.CodePermissionDenied, false},
		{"core is busy", 429, `{"code":"rate_limited","message":"slow down","temporary":true}`, "register", 3, protocol.CodeRateLimited, false},
		{"register may have worked", 502, "", "register", 1, protocol.CodeUnavailable, true},
		{"login is repeated", 500, `{"code":"internal","message":"?","temporary":true}`, "login", 3, protocol.CodeInternal, true},
		{"not JSON", 200, "<html>", "me", 3, "", true},
		{"too long", 200, `"` + strings.Repeat("x", 2048) + `"`, "me", 3, "", true},
		{"redirect is not followed", 302, "", "me", 1, protocol.CodeInvalidArgument, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var n, faults atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v1/sessions" && tt.call != "login" {
					w.Write([]byte(`{"token":"t"}`))
					return
				}
				n.Add(1)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.body))
			}))
			defer s.Close()
			cfg := client.DefaultConfig()
			cfg.Address, cfg.MaxBytes = s.URL, 1024
			cfg.Retry = client.Retry{Attempts: 3, Base: time.Millisecond, Max: time.Millisecond}
			cfg.OnAttempt = func(a client.Attempt) {
				if a.Fault() {
					faults.Add(1)
				}
			}
			c, err := client.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			switch tt.call {
			case "register":
				_, _, err = c.Register(t.Context(), "alice", "secret")
			case "login":
				_, _, err = c.Login(t.Context(), "alice", "secret")
			default:
				u, _, lerr := c.Login(t.Context(), "alice", "secret")
				if lerr != nil {
					t.Fatal(lerr)
				}
				_, _, err = u.Me(t.Context())
			}
			var pe *protocol.Error
			errors.As(err, &pe)
			if err == nil || (pe == nil) != (tt.code == "") || pe != nil && pe.Code != tt.code {
				t.Errorf("error = %v, want code %q", err, tt.code)
			}
			if got := errors.Is(err, client.ErrUnknownOutcome); got != tt.unknown {
				t.Errorf("unknown outcome = %v, want %v (%v)", got, tt.unknown, err)
			}
			if n.Load() != tt.attempts {
				t.Errorf("%d attempts, want %d", n.Load(), tt.attempts)
			}
			wantFaults := tt.attempts
			if tt.status < 500 && tt.code != "" {
				wantFaults = 0
			}
			if faults.Load() != wantFaults {
				t.Errorf("%d attempts were faults, want %d", faults.Load(), wantFaults)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		want string
		set  func(*client.Config)
	}{
		{"address", func(c *client.Config) { c.Address = "127.0.0.1:8080" }},
		{"address", func(c *client.Config) { c.Address = "http://" }},
		{"local address", func(c *client.Config) { c.LocalAddress = "localhost" }},
		{"timeout", func(c *client.Config) { c.Timeout = 0 }},
		{"retry attempts", func(c *client.Config) { c.Retry.Attempts = 0 }},
		{"retry base", func(c *client.Config) { c.Retry.Max = 0 }},
		{"ping", func(c *client.Config) { c.Ping = 0 }},
		{"max bytes", func(c *client.Config) { c.MaxBytes = 1 }},
		{"random", func(c *client.Config) { c.Random = nil }},
	} {
		cfg := client.DefaultConfig()
		tt.set(&cfg)
		if _, err := client.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New = %v, want an error that names %q", err, tt.want)
		}
	}
	if err := client.DefaultConfig().Validate(); err != nil {
		t.Errorf("the default is invalid: %v", err)
	}
}

package ratelimit

import (
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// servers are the embedded Redis and, where it is to be had, a real one.
func servers(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{"miniredis": miniredis.RunT(t).Addr()}
	e, err := engine.Redis(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("redis is required when CI=true: %v", err)
		}
		t.Logf("no real redis: %v", err)
		return out
	}
	out["redis"] = startRedis(t, e)
	return out
}

func startRedis(t *testing.T, e engine.Engine, args ...string) string {
	t.Helper()
	addr := freeport.ForTest(t)
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(filepath.Join(e.Bin, "redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	cmd.Args = append(cmd.Args, args...)
	cmd.Env = append(os.Environ(), e.Env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	for deadline := time.Now().Add(10 * time.Second); c.Ping(t.Context()).Err() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("redis does not answer")
		}
		time.Sleep(10 * time.Millisecond) // until it listens
	}
	return addr
}

func service(t *testing.T, addr string) *Service {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Redis, cfg.Timeout = []string{addr}, time.Second
	return serviceOf(t, cfg)
}

func serviceOf(t *testing.T, cfg Config) *Service {
	t.Helper()
	s, err := New(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// ask is one request; entries are "key=value".
func ask(t *testing.T, s *Service, descriptors ...string) *ratelimitv3.RateLimitResponse {
	t.Helper()
	r := &ratelimitv3.RateLimitRequest{Domain: "tracegate"}
	for _, d := range descriptors {
		r.Descriptors = append(r.Descriptors, descriptor(d))
	}
	out, err := s.ShouldRateLimit(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func descriptor(text string) *commonv3.RateLimitDescriptor {
	d := &commonv3.RateLimitDescriptor{}
	for _, e := range strings.Fields(text) {
		key, value, _ := strings.Cut(e, "=")
		d.Entries = append(d.Entries, &commonv3.RateLimitDescriptor_Entry{Key: key, Value: value})
	}
	return d
}

func passes(r *ratelimitv3.RateLimitResponse) bool {
	return r.GetOverallCode() == ratelimitv3.RateLimitResponse_OK
}

func TestLimits(t *testing.T) {
	for name, addr := range servers(t) {
		t.Run(name, func(t *testing.T) {
			s := service(t, addr)
			const ann, bob = "limit=a rate=3/3600 user=ann", "limit=a rate=3/3600 user=bob"
			for i := range 3 {
				if r := ask(t, s, ann); !passes(r) || r.GetStatuses()[0].GetLimitRemaining() != uint32(2-i) || r.GetStatuses()[0].GetCurrentLimit().GetRequestsPerUnit() != 3 {
					t.Fatalf("request %d: %v", i, r)
				}
			}
			r := ask(t, s, ann)
			if reset := r.GetStatuses()[0].GetDurationUntilReset().AsDuration(); passes(r) || r.GetStatuses()[0].GetLimitRemaining() != 0 || reset <= 0 || reset > time.Hour {
				t.Errorf("one more: %v", r)
			}
			if !passes(ask(t, s, bob)) || !passes(ask(t, s, "limit=b rate=3/3600 user=ann")) || !passes(ask(t, s, "limit=a rate=9/3600 user=ann")) {
				t.Error("another user, another limit or a raised one has no room")
			}
			for range 5 {
				if r := ask(t, s, "limit=c rate=2/3600 shadow=true"); !passes(r) {
					t.Errorf("in shadow: %v", r)
				}
			}
			if n := testutil.ToFloat64(s.asked.WithLabelValues("c", "shadow")); n != 3 {
				t.Errorf("%v counted in shadow", n)
			}
			// The tenant is the edge's, whatever else the baggage says.
			for i, baggage := range []string{"traffic.env=prod,traffic.tenant=t1", "other=x,traffic.tenant=t1;p=1", "traffic.tenant=t2"} {
				if r := ask(t, s, "limit=d rate=1/3600 baggage="+baggage); passes(r) != (i != 1) {
					t.Errorf("baggage %q: %v", baggage, r)
				}
			}
			// What one limit refuses does not use up another.
			ask(t, s, "limit=e rate=1/3600")
			for range 3 {
				if passes(ask(t, s, "limit=e rate=1/3600", "limit=f rate=1/3600")) {
					t.Error("over a limit of two")
				}
			}
			if !passes(ask(t, s, "limit=f rate=1/3600")) {
				t.Error("the other limit was used up")
			}
		})
	}
}

// TestLimitIsExact under many askers at one time.
func TestLimitIsExact(t *testing.T) {
	for name, addr := range servers(t) {
		t.Run(name, func(t *testing.T) {
			services := []*Service{service(t, addr), service(t, addr)}
			var passed atomic.Int64
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					for range 25 {
						if passes(ask(t, services[i%2], "limit=x rate=77/86400")) {
							passed.Add(1)
						}
					}
				})
			}
			all.Wait()
			if passed.Load() != 77 {
				t.Errorf("%d of 200 passed, want 77", passed.Load())
			}
		})
	}
}

// TestWindowSlides: over a long time as many pass as the rate says, and a new window
// does not begin empty.
func TestWindowSlides(t *testing.T) {
	m := miniredis.RunT(t)
	s := service(t, m.Addr())
	now := time.Unix(60*16_666_666, 0)
	passed := 0
	for range 600 { // a minute at 10 a second against 60 a minute
		m.SetTime(now)
		if passes(ask(t, s, "limit=x rate=60/60")) {
			passed++
		}
		now = now.Add(100 * time.Millisecond)
	}
	if passed != 60 {
		t.Errorf("%d passed in the first minute", passed)
	}
	for range 600 {
		m.SetTime(now)
		if passes(ask(t, s, "limit=x rate=60/60")) {
			passed++
		}
		now = now.Add(100 * time.Millisecond)
	}
	if passed < 110 || passed > 125 {
		t.Errorf("%d passed in two minutes, want about 120", passed)
	}
}

func TestRedisIsAway(t *testing.T) {
	m := miniredis.RunT(t)
	s := service(t, m.Addr())
	if !passes(ask(t, s, "limit=open rate=1/60")) {
		t.Fatal("no room")
	}
	m.Close()
	for range 3 {
		if !passes(ask(t, s, "limit=open rate=1/60")) || passes(ask(t, s, "limit=shut rate=1/60 closed=true")) {
			t.Error("an open limit refuses, or a closed one does not")
		}
	}
	if n := testutil.ToFloat64(s.asked.WithLabelValues("open", "failed_open")) + testutil.ToFloat64(s.asked.WithLabelValues("shut", "failed_closed")); n != 6 {
		t.Errorf("%v counted", n)
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); passes(ask(t, s, "limit=open rate=1/60")); {
		if time.Now().After(deadline) {
			t.Fatal("counts do not come back")
		}
	}
}

func TestBadDescriptors(t *testing.T) {
	s := service(t, "127.0.0.1:1")
	for _, text := range []string{"", "limit=a", "rate=1/1", "limit=a rate=0/1", "limit=a rate=1/0", "limit=a rate=x", "limit=a rate=1/100000", strings.Repeat("a=b ", 17)} {
		r := &ratelimitv3.RateLimitRequest{Domain: "tracegate", Descriptors: []*commonv3.RateLimitDescriptor{descriptor(text)}}
		if _, err := s.ShouldRateLimit(t.Context(), r); err == nil || !strings.Contains(err.Error(), "descriptors[0]") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := s.ShouldRateLimit(t.Context(), &ratelimitv3.RateLimitRequest{Domain: "other"}); err == nil {
		t.Error("another domain is served")
	}
}

// TestListensOnLoopbackOnly: whoever reaches it can use up everybody's limits.
func TestListensOnLoopbackOnly(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "10.0.0.5:0", "localhost:0"} {
		cfg := DefaultConfig()
		cfg.Listen = addr
		if err := Run(t.Context(), cfg, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "listen: must be a loopback address") {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

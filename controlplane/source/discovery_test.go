package source

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"context"
	"net"
	"net/netip"

	"github.com/tracegate/tracegate/controlplane/policy"
)

// guarded is a zone that a test changes while it is asked.
type guarded struct {
	mu sync.Mutex
	zone
}

func (g *guarded) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.zone.LookupNetIP(ctx, network, host)
}

func (g *guarded) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.zone.LookupSRV(ctx, service, proto, name)
}

func (g *guarded) set(change func(*zone)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(&g.zone)
}

// TestDiscovery: an address that goes leaves within a second, all that goes stays and is
// said, and the file is followed as before.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	z := &guarded{zone: zone{hosts: map[string][]string{"core.test": {"10.0.0.1", "10.0.0.2"}}}}
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	save := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	save("services: {core: {baseline: ['dns://core.test:80', '127.0.0.1:9']}}\n")
	d := Discovery{
		File: File[policy.Endpoints]{Path: path, Parse: policy.ParseEndpoints, MaxSize: policy.MaxSize},
		DNS:  &DNS{Resolver: z, Refresh: 50 * time.Millisecond, Timeout: time.Second, Log: slog.New(slog.DiscardHandler)},
	}
	out := make(chan Update[policy.Endpoints])
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, out) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	wait := func(what string, ok func(Update[policy.Endpoints], string) bool) {
		t.Helper()
		deadline := time.After(time.Minute)
		for {
			select {
			case u := <-out:
				if ok(u, strings.Join(u.Value.Services["core"]["baseline"], " ")) {
					return
				}
			case <-deadline:
				t.Fatal(what)
			}
		}
	}
	wait("both addresses", func(u Update[policy.Endpoints], a string) bool {
		return a == "10.0.0.1:80 10.0.0.2:80 127.0.0.1:9" && len(u.Lost) == 0
	})
	z.set(func(z *zone) { z.hosts["core.test"] = []string{"10.0.0.2"} })
	wait("one has gone", func(_ Update[policy.Endpoints], a string) bool { return a == "10.0.0.2:80 127.0.0.1:9" })
	z.set(func(z *zone) { z.down = true })
	wait("all is lost and goes on", func(u Update[policy.Endpoints], a string) bool {
		return a == "10.0.0.2:80 127.0.0.1:9" && len(u.Lost) == 1 && strings.Contains(u.Lost[0], "core.test")
	})
	z.set(func(z *zone) { z.down = false })
	wait("found again", func(u Update[policy.Endpoints], _ string) bool { return u.Err == nil && len(u.Lost) == 0 })
	save("services: {core: {baseline: ['nowhere']}}\n")
	wait("a mistake", func(u Update[policy.Endpoints], _ string) bool { return u.Err != nil })
	save("services: {core: {baseline: ['127.0.0.1:7']}}\n")
	wait("no name any more", func(_ Update[policy.Endpoints], a string) bool { return a == "127.0.0.1:7" })
}

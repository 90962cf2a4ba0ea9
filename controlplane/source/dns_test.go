package source

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// zone is a resolver with a few records.
type zone struct {
	hosts map[string][]string
	srv   map[string][]*net.SRV
	down  bool
}

func (z *zone) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if z.down {
		return nil, errors.New("server misbehaving")
	}
	var out []netip.Addr
	for _, a := range z.hosts[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, nil
}

func (z *zone) LookupSRV(_ context.Context, _, _, name string) (string, []*net.SRV, error) {
	if z.down {
		return "", nil, errors.New("server misbehaving")
	}
	return name, z.srv[name], nil
}

func TestDNS(t *testing.T) {
	t.Parallel()
	z := &zone{
		hosts: map[string][]string{"a.test": {"10.0.0.2", "10.0.0.1", "2001:db8::1"}, "b.test": {"10.0.1.1"}},
		srv:   map[string][]*net.SRV{"_http._tcp.c.test": {{Target: "a.test.", Port: 81}, {Target: "b.test.", Port: 82}}},
	}
	d := &DNS{Resolver: z, Timeout: time.Second, Log: slog.New(slog.DiscardHandler)}
	resolve := func(endpoints ...string) string {
		t.Helper()
		out, err := d.Resolve(t.Context(), endpoints)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSorted(out) {
			t.Errorf("not sorted: %v", out)
		}
		return strings.Join(out, " ")
	}
	all := []string{"dns://a.test:80", "srv://_http._tcp.c.test", "127.0.0.1:9", "dns://b.test:82"}
	const want = "10.0.0.1:80 10.0.0.1:81 10.0.0.2:80 10.0.0.2:81 10.0.1.1:82 127.0.0.1:9 [2001:db8::1]:80 [2001:db8::1]:81"
	if got := resolve(all...); got != want {
		t.Errorf("resolved: %s", got)
	}
	// All that is there is gone: what was there goes on, and is said.
	for name, lose := range map[string]func(){"no answer": func() { z.down = true }, "empty answers": func() { z.hosts, z.srv = nil, nil }} {
		was := *z
		lose()
		if got := resolve(all...); got != want || len(d.Lost()) != 3 {
			t.Errorf("%s: %s, lost %q", name, got, d.Lost())
		}
		*z = was
		if got := resolve(all...); got != want || len(d.Lost()) != 0 {
			t.Errorf("after %s: %s, lost %q", name, got, d.Lost())
		}
	}
	z.hosts["a.test"] = []string{"10.0.0.2"}
	if got := resolve("dns://a.test:80"); got != "10.0.0.2:80" {
		t.Errorf("an address that went: %s", got)
	}
	if _, err := d.Resolve(t.Context(), []string{"dns://never.test:80"}); err == nil || !strings.Contains(err.Error(), "dns://never.test:80") {
		t.Errorf("a name that was never answered: %v", err)
	}
}

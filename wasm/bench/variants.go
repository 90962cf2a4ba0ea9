package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/wasm/module"
)

// policy is the one of docs and of same_work.lua.
const policy = `{"env":"prod","tenant":"public",
"cohorts":[{"name":"canary","env":"canary","match":{"any":[{"header":{"name":"x-env","exact":"canary"}},{"cookie":{"name":"env","exact":"canary"}}]}}],
"tenants":[{"name":"search","match":{"host":"search.*"}},{"name":"payment","match":{"host":"payment.*"}},{"claim":"tenant"}]}`

//go:embed same_work.lua
var lua string

// variant is one listener.
type variant struct {
	name   string
	what   string
	filter any  // the HTTP filter before the router; nil for none
	early  bool // remove x-traffic-* from requests, as the edge does
	// carries are patterns of what must and must not reach the upstream.
	carries []string
	lacks   []string
}

func makeVariants(ctx context.Context, dir string, log *slog.Logger) ([]variant, error) {
	ours, err := module.Ensure(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	noop := filepath.Join(dir, "noop.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", noop, "github.com/tracegate/tracegate/wasm/stockgo/noop")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build no-op filter: %w: %s", err, bytes.TrimSpace(out))
	}
	canary := group.ColorOf("canary")
	colored := []string{
		"traceparent: 00-" + canary.String() + "[0-9a-f]{24}-[0-9a-f]{16}-03\r\n",
		"tracestate: tg=0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331\r\n",
		"baggage: traffic.env=canary,traffic.tenant=search,user.kind=free\r\n",
	}
	untouched := []string{"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n", "baggage: user.kind=free\r\n"}
	id := group.Group{Color: canary, Env: "canary", Tenant: "search"}.ID()
	return []variant{
		{name: "plain", what: "no filter", carries: untouched, lacks: []string{"x-traffic-group"}},
		{name: "noop", what: "a Wasm filter that does nothing (stock Go, V8)", filter: wasmFilter("noop", noop, ""), carries: untouched, lacks: []string{"x-traffic-group"}},
		{name: "calls", what: "a Wasm filter that only makes our filter's calls to Envoy, with fixed values", filter: wasmFilter("calls", noop, "calls"), early: true, carries: []string{"x-traffic-group: 000000\r\n", colored[1]}},
		{name: "lua", what: "Lua doing the work of our filter, with a cheap hash for md5", filter: luaFilter(), early: true, carries: append(colored, "x-traffic-group: [0-9a-f]{6}\r\n")},
		{name: "filter", what: "our filter", filter: wasmFilter("filter", ours, policy), early: true, carries: append(colored, "x-traffic-group: "+string(id)+"\r\n")},
	}, nil
}

// verify sends one request through each variant and looks at what arrives.
func verify(e *edge, up *upstream, variants []variant) error {
	for i, v := range variants {
		c, err := dial(e.addr(i), 1)
		if err != nil {
			return err
		}
		seen, err := up.spy(func() error { return one(c.conns[0], c.bufs[0]) })
		c.close()
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		for _, pattern := range v.carries {
			if !regexp.MustCompile("(?i)\r\n" + pattern).MatchString(seen) {
				return fmt.Errorf("%s: the upstream did not get %q but\n%s", v.name, pattern, seen)
			}
		}
		for _, pattern := range v.lacks {
			if regexp.MustCompile("(?i)" + pattern).MatchString(seen) {
				return fmt.Errorf("%s: the upstream got %q:\n%s", v.name, pattern, seen)
			}
		}
	}
	return nil
}

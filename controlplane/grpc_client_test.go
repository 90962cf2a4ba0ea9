package controlplane

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/xds"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/semconv"
)

// instance is a gRPC server at addr.
type instance struct {
	addr string
	stop func()
}

func startInstance(t *testing.T) instance {
	t.Helper()
	l := listener(t)
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	i := instance{addr: l.Addr().String(), stop: sync.OnceFunc(func() { s.GracefulStop(); <-done })}
	t.Cleanup(i.stop)
	return i
}

// grpcClient calls service by grpc-go's own xDS client: its bootstrap and the name are
// all that it is told.
func grpcClient(t *testing.T, xdsAddr, service string) healthpb.HealthClient {
	t.Helper()
	resolver, err := xds.NewXDSResolverWithConfigForTesting(fmt.Appendf(nil, `{
		"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
		"node": {"id": "orders-caller"}}`, xdsAddr))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///"+service, grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return healthpb.NewHealthClient(conn)
}

// call returns the address that answered.
func call(ctx context.Context, c healthpb.HealthClient) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var p peer.Peer
	_, err := c.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&p), grpc.WaitForReady(true))
	if err != nil {
		return "", err
	}
	return p.Addr.String(), nil
}

// served calls until the last hundred calls went to exactly these addresses.
func served(t *testing.T, ctx context.Context, c healthpb.HealthClient, want ...string) map[string]int {
	t.Helper()
	slices.Sort(want)
	got := map[string]int{}
	eventually(t, fmt.Sprintf("calls go to %s", want), func() bool {
		clear(got)
		for range 100 {
			addr, err := call(ctx, c)
			if err != nil {
				t.Fatal(err)
			}
			got[addr]++
		}
		return slices.Equal(slices.Sorted(maps.Keys(got)), want)
	}, func() any { return got })
	return got
}

const ordersPolicy = `services:
  - name: orders
    pools: [{name: baseline, protocol: grpc}, {name: canary, protocol: grpc}, {name: isolated, protocol: grpc}]
    rules: [%s]
    routes: [{name: orders, prefix: /orders, grpc: true}]
`

func withOrders(t *testing.T, rules string) string {
	t.Helper()
	out := strings.Replace(string(policy.Default), "services:\n", fmt.Sprintf(ordersPolicy, rules), 1)
	if _, err := policy.Parse([]byte(out)); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestGRPCClient has grpc-go's xDS client resolve a service from the control plane and
// call real servers, and moves its traffic in each way that there is, under calls none of
// which may fail.
func TestGRPCClient(t *testing.T) {
	t.Parallel()
	one, two, canary, isolated := startInstance(t), startInstance(t), startInstance(t), startInstance(t)
	cfg := testConfig(t)
	endpointsOf := func(base ...string) string {
		return strings.TrimRight(endpoints, "}\n") + fmt.Sprintf("}, orders: {baseline: ['%s'], canary: ['%s'], isolated: ['%s']}}\n",
			strings.Join(base, "', '"), canary.addr, isolated.addr)
	}
	write(t, cfg.Policy, withOrders(t, ""))
	write(t, cfg.Endpoints, endpointsOf(one.addr))
	l, err := net.Listen("tcp", freeport.ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	p := runOn(t, cfg, newWorld(), l)
	c := grpcClient(t, p.xds, "orders")
	served(t, t.Context(), c, one.addr)

	ctx, stop := context.WithCancel(t.Context())
	var calls atomic.Int64
	var load sync.WaitGroup
	load.Go(func() {
		for ctx.Err() == nil {
			if _, err := call(ctx, c); err != nil && ctx.Err() == nil {
				t.Errorf("a call failed while traffic was moved: %v", err)
				return
			}
			calls.Add(1)
		}
	})

	write(t, cfg.Endpoints, endpointsOf(one.addr, two.addr)) // one more
	served(t, t.Context(), c, one.addr, two.addr)
	write(t, cfg.Endpoints, endpointsOf(two.addr)) // one less
	served(t, t.Context(), c, two.addr)

	const method = `match: [{path: /grpc.health.v1.Health/Check}]`
	write(t, cfg.Policy, withOrders(t, `{name: split, `+method+`, canary: {header: x-user, pools: [{pool: canary, percent: 30}]}}`))
	served(t, t.Context(), c, two.addr, canary.addr) // and now with nothing of the time before
	n := served(t, t.Context(), c, two.addr, canary.addr)[canary.addr]
	if n < 5 || n > 70 { // 100 draws of 0.3: out of reach by chance
		t.Errorf("canary served %d of 100 calls, its weight is 30%%", n)
	}
	write(t, cfg.Policy, withOrders(t, `{name: all, `+method+`, pool: canary}`))
	served(t, t.Context(), c, canary.addr)
	write(t, cfg.Policy, withOrders(t, `{name: beta, match: [{prefix: /grpc.health.v1.Health, headers: [{name: x-beta, exact: "1"}]}], pool: canary}`))
	served(t, t.Context(), c, two.addr)
	served(t, metadata.AppendToOutgoingContext(t.Context(), "x-beta", "1"), c, canary.addr)

	// A group that is moved, and its cohort before.
	group := metadata.AppendToOutgoingContext(t.Context(), semconv.HeaderGroup, string(sick.ID()), semconv.HeaderTraceparent, "00-"+sick.Color.String()+"000000000000000000000001-0000000000000001-01")
	served(t, group, c, canary.addr)
	if _, err := p.api.Isolate(t.Context(), sick.ID(), byHand); err != nil {
		t.Fatal(err)
	}
	served(t, group, c, isolated.addr)
	served(t, t.Context(), c, two.addr)

	stop()
	load.Wait()
	isolated.stop() // its pool falls back to baseline
	served(t, group, c, two.addr)

	s := p.status("client in sync", func(s ctlapi.Status) bool { return s.Clients != nil && s.Clients.Waiting == 0 })
	if s.Clients.Connected != 1 || len(s.Clients.Nacks) > 0 || s.Clients.Problem != "" {
		t.Errorf("clients in status: %+v", *s.Clients)
	}
	t.Logf("%d calls while traffic was moved, none failed", calls.Load())
}

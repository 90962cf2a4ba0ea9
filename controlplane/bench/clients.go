package main

import (
	"context"
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tracegate/tracegate/controlplane/xds"
)

// clients are edges that acknowledge everything and keep nothing.
type clients struct {
	n    int
	acks chan time.Time // when a response was acknowledged, of any of them
	err  chan error
}

// connect returns when they have heard nothing for a while.
func connect(ctx context.Context, addr string, n int) (*clients, error) {
	c := &clients{n: n, acks: make(chan time.Time, 64*n), err: make(chan error, n)}
	for i := range n {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		if err != nil {
			return nil, err
		}
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			return nil, err
		}
		go func() {
			defer conn.Close()
			c.err <- c.follow(stream, fmt.Sprintf("client-%d", i))
		}()
	}
	return c, c.quiet(ctx)
}

const quietFor = 2 * time.Second

func (c *clients) quiet(ctx context.Context) error {
	for n := 0; ; {
		select {
		case <-c.acks:
			n++
		case err := <-c.err:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quietFor):
			if n >= c.n {
				return nil
			}
		}
	}
}

// all returns when each has acknowledged one response, and the time of the last.
func (c *clients) all(ctx context.Context) (time.Time, error) {
	var last time.Time
	timeout := time.After(time.Minute)
	for range c.n {
		select {
		case at := <-c.acks:
			if at.After(last) {
				last = at
			}
		case err := <-c.err:
			return last, err
		case <-ctx.Done():
			return last, ctx.Err()
		case <-timeout:
			return last, fmt.Errorf("not every client got the change in a minute")
		}
	}
	return last, nil
}

// follow subscribes as Envoy does.
func (c *clients) follow(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, id string) error {
	send := func(t xds.Type, nonce string, names ...string) error {
		return stream.Send(&discoveryv3.DeltaDiscoveryRequest{
			Node: &corev3.Node{Id: id}, TypeUrl: t.URL(), ResponseNonce: nonce, ResourceNamesSubscribe: names,
		})
	}
	for _, t := range []xds.Type{xds.Clusters, xds.Listeners} {
		if err := send(t, ""); err != nil {
			return err
		}
	}
	var known [xds.NumTypes]bool
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		t, ok := xds.TypeOf(resp.GetTypeUrl())
		if !ok {
			return fmt.Errorf("response of type %q", resp.GetTypeUrl())
		}
		if err := send(t, resp.GetNonce()); err != nil {
			return err
		}
		c.acks <- time.Now()
		if known[t] {
			continue
		}
		known[t] = true
		switch t {
		case xds.Clusters:
			err = send(xds.Endpoints, "", discovered(resp)...)
		case xds.Listeners:
			if err = send(xds.Extensions, "", xds.JWTName, xds.RequireName, xds.FilterName, xds.RateLimitName); err == nil {
				err = send(xds.Routes, "", xds.RoutesName)
			}
		case xds.Routes:
			err = send(xds.VirtualHosts, "", xds.RoutesName)
		}
		if err != nil {
			return err
		}
	}
}

func discovered(resp *discoveryv3.DeltaDiscoveryResponse) []string {
	var out []string
	for _, r := range resp.GetResources() {
		var c clusterv3.Cluster
		if r.GetResource().UnmarshalTo(&c) == nil && c.GetEdsClusterConfig() != nil {
			out = append(out, r.GetName())
		}
	}
	return out
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/mesh/discovery"
)

// discoveryRetry is between two tries to register.
const discoveryRetry = 500 * time.Millisecond

func (d DiscoveryConfig) client() (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints: d.Etcd, Username: d.Username, Password: d.Password, DialTimeout: 5 * time.Second,
		DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("discovery.etcd: %w", err)
	}
	return c, nil
}

// registry is where the control plane finds processes.
func (d DiscoveryConfig) registry(client *clientv3.Client, log *slog.Logger) source.Registry {
	return source.Registry{
		Etcd:  source.EtcdPrefix{Client: client, Prefix: d.Prefix, Retry: discoveryRetry, Log: log},
		Grace: d.TTL + 10*time.Second, // to find etcd again a client may take seconds
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", addr)
		},
	}
}

// registered runs a process that is registered from when it is ready until it is told to
// stop, where there is a discovery.
func registered(ctx context.Context, d DiscoveryConfig, service, pool string, log *slog.Logger, run func(ctx context.Context, ready func(addr string)) error) error {
	if len(d.Etcd) == 0 {
		return run(ctx, func(string) {})
	}
	client, err := d.client()
	if err != nil {
		return err
	}
	defer client.Close()
	serves := make(chan string, 1)
	work, ctx := errgroup.WithContext(ctx)
	ctx, ended := context.WithCancel(ctx)
	work.Go(func() error {
		select {
		case addr := <-serves:
			return discovery.Registration{
				Client: client, Prefix: d.Prefix, Service: service, Pool: pool, Addr: addr, TTL: d.TTL, Retry: discoveryRetry, Log: log,
			}.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	work.Go(func() error {
		defer ended()
		return run(ctx, func(addr string) { serves <- addr })
	})
	return work.Wait()
}

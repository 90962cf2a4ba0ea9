package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/xds"
)

type planeConfig struct {
	services, rules   int
	listen, upstreams string
}

// said is what a control plane tells the bench, a line of JSON.
type said struct {
	Addr     string `json:",omitempty"` // once, when it listens
	Start    int64  `json:",omitempty"` // nanoseconds since 1970, right before a change was applied
	Read     int64  `json:",omitempty"` // nanoseconds it took to read the policy, before that
	Rendered usage  // when all resources were there
	usage
}

// usage is what a control plane has used up so far.
type usage struct {
	CPU    time.Duration
	Allocs uint64
	Bytes  uint64 // on the wire, to edges
}

func (u usage) minus(o usage) usage {
	return usage{u.CPU - o.CPU, u.Allocs - o.Allocs, u.Bytes - o.Bytes}
}

// plane is a control plane to measure.
type plane interface {
	serve(context.Context, net.Listener) error
	read([]byte) (policy.Policy, error)
	// apply calls rendered when it has all resources, before they are served.
	apply(p policy.Policy, rendered func()) error
}

// beControlPlane serves edges, and obeys its standard input: a line with a pool makes
// the change, an empty line asks for the usage.
func beControlPlane(ctx context.Context, role string, c planeConfig) error {
	var p plane = newPeer(ctx, c)
	if role == "ours" {
		p = &ours{listen: c.listen, endpoints: endpoints(c.services, c.upstreams), server: server.New(server.DefaultConfig(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))}
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	counted := &countingListener{Listener: lis}
	go func() { _ = p.serve(ctx, counted) }() // ends with the process
	out := json.NewEncoder(os.Stdout)
	if _, err := change(p, c, pools[0], counted); err != nil {
		return err
	}
	if err := out.Encode(said{Addr: lis.Addr().String()}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		answer := said{}
		if to := lines.Text(); to != "" {
			if answer, err = change(p, c, to, counted); err != nil {
				return err
			}
		} else {
			answer.usage = used(counted)
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

// change answers with what was used up before it was applied.
func change(p plane, c planeConfig, to string, l *countingListener) (said, error) {
	start := time.Now()
	pol, err := p.read(document(size{c.services, c.rules}, to))
	if err != nil {
		return said{}, err
	}
	read := time.Since(start)
	runtime.GC() // what reading left is not the change's to clean up
	answer := said{Read: int64(read), usage: used(l), Start: time.Now().UnixNano()}
	err = p.apply(pol, func() { answer.Rendered = used(l) })
	return answer, err
}

func used(l *countingListener) usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // cannot fail for oneself
	cpu := time.Duration(r.Utime.Nano() + r.Stime.Nano())
	return usage{CPU: cpu, Allocs: m.Mallocs, Bytes: l.written.Load()}
}

// ours is the product's: plan, resources, server.
type ours struct {
	listen    string
	endpoints policy.Endpoints
	server    *server.Server
	reader    policy.Reader
	builder   xds.Builder
}

func (o *ours) serve(ctx context.Context, lis net.Listener) error { return o.server.Serve(ctx, lis) }

func (o *ours) read(doc []byte) (policy.Policy, error) { return o.reader.Parse(doc) }

func (o *ours) apply(pol policy.Policy, rendered func()) error {
	p, err := makePlan(pol, o.endpoints, o.listen)
	if err != nil {
		return err
	}
	snap, err := o.builder.Build(p)
	if err != nil {
		return fmt.Errorf("render: %w", err)
	}
	rendered()
	o.server.Set(snap)
	return nil
}

// countingListener counts what is written to its connections.
type countingListener struct {
	net.Listener
	written atomic.Uint64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &countingConn{c, &l.written}, err
}

type countingConn struct {
	net.Conn
	written *atomic.Uint64
}

func (c *countingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(uint64(n))
	return n, err
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/controlplane/history"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/controlplane/xds"
)

type planeConfig struct {
	services, rules        int
	listen, upstreams, dir string
}

// said is what a control plane tells the bench, a line of JSON.
type said struct {
	Addr     string `json:",omitempty"` // once, when it listens
	Start    int64  `json:",omitempty"` // nanoseconds since 1970, when the document of a change came
	Read     int64  `json:",omitempty"` // nanoseconds until it was checked, written, read back and kept
	Known    usage  // then
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
	d, err := newDesk(ctx, c.dir)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if _, err := change(d, p, c, pools[0], counted); err != nil {
		return err
	}
	if err := out.Encode(said{Addr: lis.Addr().String()}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		answer := said{}
		if to := lines.Text(); to != "" {
			if answer, err = change(d, p, c, to, counted); err != nil {
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

// change answers with what was used up before the document came.
func change(d *desk, p plane, c planeConfig, to string, l *countingListener) (said, error) {
	doc := document(size{c.services, c.rules}, to)
	runtime.GC() // what making it left is not the change's to clean up
	start := time.Now()
	answer := said{usage: used(l), Start: start.UnixNano()}
	pol, err := d.take(doc)
	if err != nil {
		return said{}, err
	}
	answer.Read, answer.Known = int64(time.Since(start)), used(l)
	err = p.apply(pol, func() { answer.Rendered = used(l) })
	return answer, err
}

// desk is what the product does with a document before it makes a plan of it: it is
// checked, written (and synced), read back by who watches the file, and kept among the
// revisions. Both control planes have one.
type desk struct {
	file    string
	reader  policy.Reader
	written chan struct{}
	updates chan source.Update[policy.Policy]
	history *history.Log
}

func newDesk(ctx context.Context, dir string) (*desk, error) {
	past, _, err := history.Open(filepath.Join(dir, "policies"))
	if err != nil {
		return nil, err
	}
	d := &desk{file: filepath.Join(dir, "policy.yaml"), written: make(chan struct{}, 1), updates: make(chan source.Update[policy.Policy], 1), history: past}
	file := source.File[policy.Policy]{Path: d.file, Parse: d.reader.Parse, MaxSize: policy.MaxSize, Written: d.written}
	go func() { _ = file.Run(ctx, d.updates) }() // ends with the process
	<-d.updates                                  // there is none yet
	return d, nil
}

func (d *desk) take(document []byte) (policy.Policy, error) {
	if _, err := d.reader.Parse(document); err != nil {
		return policy.Policy{}, err
	}
	d.history.Announce(document, "bench", "")
	if err := durable.Replace(d.file, document); err != nil {
		return policy.Policy{}, err
	}
	d.written <- struct{}{}
	u := <-d.updates
	if u.Err != nil {
		return policy.Policy{}, u.Err
	}
	return u.Value, d.history.Add(u.Raw, time.Now())
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
	builder   xds.Builder
}

func (o *ours) serve(ctx context.Context, lis net.Listener) error { return o.server.Serve(ctx, lis) }

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

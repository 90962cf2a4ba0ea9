//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
	"github.com/tracegate/tracegate/mesh/procfs"
)

// footprint is one measurement of one server.
type footprint struct {
	perConn   float64 // KB of RSS that a connection adds, idle
	gross     float64 // KB of the whole process divided by its connections
	afterLoad float64 // KB that a connection adds, after all were pinged
	heap      float64 // KB
	stacks    float64 // KB
	kernel    float64 // KB, both ends of the connection
	gcs       float64 // collections in 10 s of pings
	cpu       float64 // microseconds for a ping and its pong
}

// connections measures what idle connections cost the named servers, or all.
func connections(ctx context.Context, c config, only []string) error {
	files, err := allowFiles()
	if err != nil {
		return err
	}
	if most := files - 200; c.connections > most {
		fmt.Printf("a process may open %d files here: %d connections instead of %d\n", files, most, c.connections)
		c.connections = most
	}
	list := servers()
	if len(only) > 0 {
		list = slices.DeleteFunc(list, func(s server) bool { return !slices.Contains(only, s.name) })
	}
	samples := make([][]footprint, len(list))
	for round := range c.rounds {
		for j := range list {
			i := (j + round) % len(list) // nobody always follows the same one
			f, err := measureFootprint(ctx, c, list[i], 1+round*len(list)+j)
			if err != nil {
				return fmt.Errorf("%s: %w", list[i].name, err)
			}
			samples[i] = append(samples[i], f)
			fmt.Fprintf(os.Stderr, "round %d: %s: %.2f KB a connection, %.2f after pings\n", round+1, list[i].name, f.perConn, f.afterLoad)
		}
	}
	r := connectionReport{c: c, servers: list, samples: samples}
	fmt.Print(r.section(), "\n\n", r.figures())
	if c.write != "" {
		return benchdoc.Write(c.write, "bench:connections", r.section())
	}
	return nil
}

// measureFootprint measures a server in new processes.
func measureFootprint(ctx context.Context, c config, s server, network int) (f footprint, err error) {
	redis := ""
	if s.redis {
		p, err := start(ctx, "redis")
		if err != nil {
			return f, err
		}
		defer p.stop()
		redis = p.addr
	}
	p, err := start(ctx, s.name, redis)
	if err != nil {
		return f, err
	}
	defer p.stop()
	l, err := start(ctx, "load")
	if err != nil {
		return f, err
	}
	defer l.stop()
	// Some connections come and go first, so that code and pools are not counted.
	open := openArgs{Server: s.name, Addr: p.addr, Connections: min(100, c.connections), Net: network}
	if err := errors.Join(l.ask("open", open, nil), l.ask("close", struct{}{}, nil), settle(ctx)); err != nil {
		return f, err
	}
	kernel, err := procfs.Kernel()
	if err != nil {
		return f, err
	}
	var base, idle, loaded usage
	var pongs int64
	ping := pingArgs{PerSecond: c.pings, For: c.pingFor}
	open.Connections = c.connections
	err = errors.Join(
		p.ask("usage", struct{}{}, &base), l.ask("open", open, nil), settle(ctx),
		p.ask("usage", struct{}{}, &idle),
	)
	if err != nil {
		return f, err
	}
	inKernel, err := procfs.Kernel()
	if err != nil {
		return f, err
	}
	if err := errors.Join(l.ask("ping", ping, &pongs), p.ask("usage", struct{}{}, &loaded)); err != nil {
		return f, err
	}
	n := float64(c.connections) * 1024
	return footprint{
		perConn: float64(idle.RSS-base.RSS) / n, gross: float64(idle.RSS) / n, afterLoad: float64(loaded.RSS-base.RSS) / n,
		heap: float64(idle.Heap-base.Heap) / n, stacks: float64(idle.Stacks-base.Stacks) / n, kernel: float64(inKernel-kernel) / n,
		gcs: float64(loaded.Collections-idle.Collections) * 10 / c.pingFor.Seconds(),
		cpu: float64((loaded.CPU - idle.CPU).Microseconds()) / float64(max(pongs, 1)),
	}, nil
}

// settle lets a server finish what connections that came or went have left to do.
func settle(ctx context.Context) error {
	select {
	case <-time.After(3 * time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type connectionReport struct {
	c       config
	servers []server
	samples [][]footprint
}

func (r connectionReport) median(i int, of func(footprint) float64) float64 {
	var v []float64
	for _, s := range r.samples[i] {
		v = append(v, of(s))
	}
	return benchdoc.Median(v)
}

func (r connectionReport) section() string {
	var b strings.Builder
	b.WriteString("## What a connection costs\n\n| server | RSS a connection | of which heap | stacks | after pings | whole process / connections | kernel, both ends | collections in 10 s of pings | CPU a ping | |\n" +
		"|---|---:|---:|---:|---:|---:|---:|---:|---:|---|\n")
	for i, s := range r.servers {
		m := func(of func(footprint) float64) float64 { return r.median(i, of) }
		fmt.Fprintf(&b, "| %s | %.2f KB | %.2f KB | %.2f KB | %.2f KB | %.2f KB | %.1f KB | %.0f | %.1f us | %s |\n", s.name,
			m(func(f footprint) float64 { return f.perConn }), m(func(f footprint) float64 { return f.heap }), m(func(f footprint) float64 { return f.stacks }),
			m(func(f footprint) float64 { return f.afterLoad }), m(func(f footprint) float64 { return f.gross }), m(func(f footprint) float64 { return f.kernel }),
			m(func(f footprint) float64 { return f.gcs }), m(func(f footprint) float64 { return f.cpu }), s.what)
	}
	fmt.Fprintf(&b, `
%d connections, each with an open session (ours: logged in, resumed, one conversation, subscribed in Redis), opened from %d loopback addresses and then idle;
each server in a process of its own, medians of %d rounds in changing order. RSS is measured after three forced collections, less what the process had
before, when a hundred connections had come and gone; "after pings" is measured again after %v of WebSocket pings, %d a second over all connections, in which collections and CPU time are
counted. Kernel memory (slabs and TCP buffers of the whole machine, server's and client's end) is not in it. %s, %s.

Repeat: `+"`go tool task bench:connections`", r.c.connections, sources, r.c.rounds, r.c.pingFor, r.c.pings, benchdoc.Machine(), time.Now().UTC().Format(time.DateOnly))
	return b.String()
}

func (r connectionReport) figures() string {
	var b strings.Builder
	kb := func(f footprint) float64 { return f.perConn }
	gc := func(f footprint) float64 { return f.gcs }
	for i, s := range r.servers[1:] {
		fmt.Fprintln(&b, benchdoc.Figure("kb_per_connection", "KB", r.median(0, kb), s.name, r.median(i+1, kb)))
	}
	for i, s := range r.servers[1:] {
		fmt.Fprintln(&b, benchdoc.Figure("collections_under_pings", "/10s", r.median(0, gc), s.name, r.median(i+1, gc)))
	}
	return b.String()
}

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/engine/enginebench"
)

// result is one round of one side.
type result struct {
	sent      int // acknowledged spans
	took      time.Duration
	cpu       time.Duration // of the side's process
	engineCPU time.Duration
	rows      uint64
	distinct  uint64 // spans among the rows
	bytes     []float64
	peak      float64 // resident memory, MB
}

func (r result) perCPU() float64 { return float64(r.sent) / r.cpu.Seconds() }

func (r result) String() string {
	return fmt.Sprintf("%d spans in %s, %.0f spans a CPU second, %.0f us a span in the engine, %d rows of %d spans, %.1f bytes a span, %.0f MB",
		r.sent, r.took.Round(time.Millisecond), r.perCPU(), float64(r.engineCPU.Microseconds())/float64(r.sent), r.rows, r.distinct, r.bytes, r.peak)
}

// measure runs a side from an empty database until all that it has acknowledged is stored;
// with an outage the engine is killed in the middle and away that long.
func measure(ctx context.Context, c config, e *enginebench.Engine, s *side, outage time.Duration) (result, error) {
	conn, err := e.Connect("default")
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	for _, sql := range []string{"DROP DATABASE IF EXISTS " + s.database, "CREATE DATABASE " + s.database} {
		if err := conn.Exec(ctx, sql); err != nil {
			return result{}, err
		}
	}
	addr, err := freeport.On("127.0.0.1")
	if err != nil {
		return result{}, err
	}
	cmd, err := s.command(ctx, addr, e.Addr)
	if err != nil {
		return result{}, err
	}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	stop := func() {
		stdin.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	defer stop()
	client, err := dial(ctx, addr)
	if err != nil {
		return result{}, err
	}
	defer client.Close()
	before, engineBefore := cpuOf(cmd.Process.Pid), cpuOf(e.PID())
	began := time.Now()
	var r result
	if r.sent, err = send(ctx, c, client, e, outage); err != nil {
		return result{}, err
	}
	if err := settled(ctx, conn, s, r.sent); err != nil {
		return result{}, err
	}
	r.took = time.Since(began)
	r.cpu, r.engineCPU, r.peak = cpuOf(cmd.Process.Pid)-before, cpuOf(e.PID())-engineBefore, peakOf(cmd.Process.Pid)
	if outage > 0 {
		r.engineCPU = 0 // of two processes
	}
	return r, r.look(ctx, conn, s)
}

// send gives the number of spans that were acknowledged.
func send(ctx context.Context, c config, client *client, e *enginebench.Engine, outage time.Duration) (int, error) {
	messages := c.spans / c.size
	var next, acknowledged atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	for i := range c.senders {
		g.Go(func() error {
			m := newMessage(uint64(i), c.size)
			for int(next.Add(1)) <= messages {
				if err := client.export(gctx, m.fresh(time.Now())); err != nil {
					return err
				}
				acknowledged.Add(int64(c.size))
			}
			return nil
		})
	}
	if outage > 0 {
		g.Go(func() error { return interrupt(gctx, e, outage, func() bool { return int(next.Load()) > messages/2 }) })
	}
	err := g.Wait()
	return int(acknowledged.Load()), err
}

// interrupt kills the engine once it is due, and starts it again after the outage.
func interrupt(ctx context.Context, e *enginebench.Engine, outage time.Duration, due func() bool) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !due() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.Kill()
	select {
	case <-time.After(outage):
	case <-ctx.Done():
	}
	return e.Restart(context.WithoutCancel(ctx))
}

// patience is how long nothing more comes until all is taken to have come: an exporter that
// failed tries again in up to 30 s.
const patience = time.Minute

// settled returns once as many rows are in the table as were sent, or patience is over.
func settled(ctx context.Context, conn driver.Conn, s *side, want int) error {
	var rows, last uint64
	changed := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for int(rows) < want && time.Since(changed) < patience {
		if err := conn.QueryRow(ctx, "SELECT count() FROM "+s.database+"."+s.tables[0]).Scan(&rows); err == nil && rows != last {
			last, changed = rows, time.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// look counts what is in the tables, and what it takes on disk when it is merged.
func (r *result) look(ctx context.Context, conn driver.Conn, s *side) error {
	if err := conn.QueryRow(ctx, fmt.Sprintf("SELECT count(), uniqExact(TraceId, SpanId) FROM %s.%s", s.database, s.tables[0])).Scan(&r.rows, &r.distinct); err != nil {
		return err
	}
	for _, table := range s.tables {
		if err := conn.Exec(ctx, fmt.Sprintf("OPTIMIZE TABLE %s.%s FINAL", s.database, table)); err != nil {
			return err
		}
		var size uint64
		if err := conn.QueryRow(ctx, "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = ? AND table = ?", s.database, table).Scan(&size); err != nil {
			return err
		}
		r.bytes = append(r.bytes, float64(size)/float64(max(r.rows, 1)))
	}
	return nil
}

// cpuOf is the CPU time a process has used (proc(5), clock ticks of 10 ms).
func cpuOf(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// peakOf is the most memory that a process had, in MB.
func peakOf(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), "VmHWM:")
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	kb, _ := strconv.ParseFloat(f[0], 64)
	return kb / 1024
}

package console

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/observability/ingest"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// Sections of the state, as events are named.
const (
	sectionGroups    = "groups"
	sectionChart     = "chart"
	sectionDecisions = "decisions"
	sectionEdges     = "edges"
	sectionTelemetry = "telemetry"
	sectionHealth    = "health"
	sectionKernel    = "kernel"
	sectionMap       = "map"
	sectionStorage   = "storage"
	sectionAnomalies = "anomalies"
)

const maxDecisions = 50

// settle is how long a second is given to be complete in the store.
const settle = 500 * time.Millisecond

// Health is whether the two sources answer.
type Health struct {
	Telemetry Source `json:"telemetry"`
	Control   Source `json:"control"`
}

// Source is one of them. Since is when it stopped answering, as far as was seen.
type Source struct {
	OK    bool      `json:"ok"`
	Since time.Time `json:"since,omitzero"`
	Error string    `json:"error,omitempty"`
}

func (s *Source) seen() bool { return s.OK || !s.Since.IsZero() }

func (s *Source) observe(err error, now time.Time) {
	switch {
	case err == nil:
		*s = Source{OK: true}
	case s.OK || s.Since.IsZero():
		*s = Source{Since: now, Error: err.Error()}
	default:
		s.Error = err.Error()
	}
}

// measured, said and probed are what one round of asking a source gave.
type measured struct {
	stats     []sli.Stats
	chart     *Chart            // nil: not asked this time, as for decisions
	calls     *ServiceMap       // nil: not asked this time
	decisions []decide.Decision // what is kept
	storage   *storage          // nil: not asked this time
	err       error
}

type said struct {
	status    ctlapi.Status
	groups    []ctlapi.Group
	decisions []decide.Decision
	err       error
}

type probed struct {
	report KernelReport
	err    error
}

// Run asks the stores while somebody watches, until ctx is done. Each source has its
// own goroutine, so that one that hangs does not hold back the others; their answers
// meet in one loop, which owns the state. When it ends, so do all event streams.
func (c *Console) Run(ctx context.Context) error {
	defer c.hub.close()
	stats, control, kernel, unusual := make(chan measured), make(chan said), make(chan probed), make(chan Anomalies)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return every(ctx, c, c.wake[0], stats, c.askStats()) })
	g.Go(func() error { return every(ctx, c, c.wake[1], control, c.askControl) })
	if c.deps.Probes != nil {
		g.Go(func() error { return every(ctx, c, c.wake[2], kernel, c.askProbes) })
	}
	g.Go(func() error { return every(ctx, c, c.wake[3], unusual, c.askAnomalies()) })
	g.Go(func() error { return c.join(ctx, stats, control, kernel, unusual) })
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

// every asks at once when the first viewer comes or an order was given, else at each
// tick, and not at all while nobody watches.
func every[T any](ctx context.Context, c *Console, wake <-chan struct{}, to chan<- T, ask func(context.Context) T) error {
	tick := time.NewTicker(c.cfg.Poll)
	defer tick.Stop()
	for {
		if c.hub.watched() {
			asked, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
			answer := ask(asked)
			cancel()
			select {
			case to <- answer:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-wake:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Console) askStats() func(context.Context) measured {
	var charted time.Time
	return func(ctx context.Context) measured {
		now := c.deps.Now()
		to := now.Add(-settle).Truncate(time.Second)
		var m measured
		if m.stats, m.err = c.deps.Stats.GroupStats(ctx, sli.Window{From: to.Add(-c.cfg.Window), To: to}); m.err != nil {
			return m
		}
		if now.Sub(charted) < c.cfg.Step && c.hub.has(sectionChart) {
			return m
		}
		charted = now
		if m.chart, m.err = c.chart(ctx, now); m.err != nil {
			return m
		}
		if m.calls, m.err = c.serviceMap(ctx, now); m.err != nil {
			return m
		}
		if m.decisions, m.err = c.deps.Records.Decisions(ctx, maxDecisions); m.err != nil {
			return m
		}
		m.storage, m.err = c.storage(ctx)
		return m
	}
}

func (c *Console) chart(ctx context.Context, now time.Time) (*Chart, error) {
	to := now.Truncate(c.cfg.Step)
	points := int(c.cfg.History / c.cfg.Step)
	from := to.Add(-time.Duration(points) * c.cfg.Step)
	stats, err := c.deps.Stats.GroupSeries(ctx, sli.Window{From: from, To: to}, c.cfg.Step)
	if err != nil {
		return nil, err
	}
	chart := NewChart(stats, from, c.cfg.Step, points)
	return &chart, nil
}

func (c *Console) storage(ctx context.Context) (*storage, error) {
	tables, err := c.deps.Records.Tables(ctx)
	if err != nil {
		return nil, err
	}
	disk, err := c.deps.Records.Disk(ctx)
	if err != nil {
		return nil, err
	}
	return &storage{Tables: tables, Disk: disk}, nil
}

func (c *Console) serviceMap(ctx context.Context, now time.Time) (*ServiceMap, error) {
	calls, leftOut, err := c.deps.Stats.Calls(ctx, lastWhole(now, mapWindow))
	if err != nil {
		return nil, err
	}
	m := NewServiceMap(calls, leftOut, mapWindow)
	return &m, nil
}

func (c *Console) askControl(ctx context.Context) said {
	var s said
	if s.status, s.err = c.deps.Control.Status(ctx); s.err != nil {
		return s
	}
	if s.groups, s.err = c.deps.Control.Groups(ctx); s.err != nil {
		return s
	}
	s.decisions, s.err = c.deps.Control.Decisions(ctx, maxDecisions)
	return s
}

func (c *Console) askProbes(ctx context.Context) probed {
	var p probed
	if p.report, p.err = c.deps.Probes.Probes(ctx); p.err != nil {
		return p
	}
	if c.deps.Now().Sub(p.report.At) > oldAfter {
		p.err = errOldReading
	}
	return p
}

// join owns the state: what was last measured and last said, and whether the sources
// answer. What happens: a source answers, or ctx is done.
func (c *Console) join(ctx context.Context, stats <-chan measured, control <-chan said, kernel <-chan probed, unusual <-chan Anomalies) error {
	var (
		lastStats measured
		lastSaid  said
		health    Health
		probes    Source
		kept      []decide.Decision
	)
	for {
		select {
		case m := <-stats:
			c.count("telemetry", m.err)
			health.Telemetry.observe(m.err, c.deps.Now())
			lastStats = m // without figures where it failed: old ones would look alive
			if m.decisions != nil {
				kept = m.decisions
			}
			if err := c.publishStats(m); err != nil {
				return err
			}
		case s := <-control:
			c.count("control", s.err)
			health.Control.observe(s.err, c.deps.Now())
			lastSaid = s
			if err := c.publishControl(s); err != nil {
				return err
			}
		case p := <-kernel:
			c.count("kernel", p.err)
			probes.observe(p.err, c.deps.Now())
			if err := c.publishKernel(p, probes); err != nil {
				return err
			}
			continue // nothing else has changed
		case a := <-unusual:
			if err := c.hub.publish(sectionAnomalies, a); err != nil {
				return err
			}
			continue
		case <-ctx.Done():
			return nil
		}
		decisions := lastSaid.decisions
		if !health.Control.OK {
			decisions = kept
		}
		if err := c.hub.publish(sectionDecisions, Entries(decisions)); err != nil {
			return err
		}
		if err := c.hub.publish(sectionGroups, Rows(lastSaid.groups, lastStats.stats)); err != nil {
			return err
		}
		if !health.Telemetry.seen() || !health.Control.seen() {
			continue
		}
		if err := c.hub.publish(sectionHealth, health); err != nil {
			return err
		}
	}
}

// telemetry is what became of what was received.
type telemetry struct {
	ingest.Account
	Balanced bool `json:"balanced"`
}

// storage is what the tables take, and what is left. While ClickHouse is away it has no
// tables: old sizes would look alive.
type storage struct {
	Tables []store.Table `json:"tables"`
	Disk   store.Disk    `json:"disk"`
}

func (c *Console) publishStats(m measured) error {
	if c.deps.Ingest != nil {
		account := c.deps.Ingest.Account()
		if err := c.hub.publish(sectionTelemetry, telemetry{account, account.Balanced()}); err != nil {
			return err
		}
	}
	if m.err != nil {
		m.storage = &storage{}
	}
	if m.storage != nil {
		if err := c.hub.publish(sectionStorage, m.storage); err != nil {
			return err
		}
	}
	if m.chart == nil {
		return nil
	}
	if m.calls != nil {
		if err := c.hub.publish(sectionMap, m.calls); err != nil {
			return err
		}
	}
	return c.hub.publish(sectionChart, m.chart)
}

func (c *Console) publishControl(s said) error {
	if s.err != nil {
		return nil // what was last said about the edges stays, under a banner
	}
	if s.status.Edges == nil {
		s.status.Edges = []ctlapi.Edge{} // an empty list in JSON, not null
	}
	return c.hub.publish(sectionEdges, s.status)
}

func (c *Console) publishKernel(p probed, source Source) error {
	if p.err != nil {
		return c.hub.publish(sectionKernel, NoKernel(p.err, source.Since))
	}
	return c.hub.publish(sectionKernel, NewKernel(p.report))
}

func (c *Console) count(source string, err error) {
	outcome := "answered"
	if err != nil {
		outcome = "failed"
	}
	c.metrics.polls.WithLabelValues(source, outcome).Inc()
}

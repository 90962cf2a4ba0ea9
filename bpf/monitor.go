package bpf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/bpf/cgroup"
	"github.com/tracegate/tracegate/bpf/goruntime"
	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/probe"
)

// running is a probe that is loaded and attached.
type running interface {
	// Read returns what has been counted since the probe began.
	Read() (probe.Reading, error)
	// Forget drops what was counted for a slot that will get a new owner.
	Forget(slot uint32) error
	// Exemplars hands over slow events until ctx is done.
	Exemplars(ctx context.Context, use func(probe.Exemplar)) error
}

// throttle is the other side of a probe: what it costs and how to make it cost less.
type throttle interface {
	Cost() (probe.Cost, error)
	Sample(shift uint) error
	Detach() error
}

// worker is a probe that needs to be run beside being read.
type worker interface {
	Run(ctx context.Context) error
}

// loaded is a probe, working or not.
type loaded struct {
	status   probe.Status
	running  running // nil: off
	throttle throttle
}

// kernelSide is the programs of this machine, all of them.
type kernelSide interface {
	// Watch makes the processes (pid -> slot) the watched ones, and has probes that
	// attach to executables or ports look at them.
	Watch(processes map[uint32]uint32) error
	Close() error
}

// maxSlow is how many slow events of each probe are kept to be shown.
const maxSlow = 32

// probed is what the monitor remembers about one probe.
type probed struct {
	loaded
	spending spending
	cost     probe.Cost
	costAt   time.Time
	state    ProbeState
}

// monitor reads the probes and publishes what they say. Its loop owns everything but
// the slow events, which come from other goroutines.
type monitor struct {
	cfg       Config
	owners    *owners
	processes Processes
	kernel    kernelSide
	probes    []*probed
	client    *http.Client
	log       *slog.Logger
	budget    budget
	export    Exporter // nil: none
	groups    *cgroup.Names

	known   []Process
	windows windows
	alerts  []Alert
	// exportFailed remembers the last outcome, so that only changes are logged.
	exportFailed bool

	slowMu sync.Mutex
	slow   map[string][]probe.Exemplar // by probe

	published atomic.Pointer[published]
}

// published is one reading: what is shown, and the histograms metrics are made of.
type published struct {
	snapshot Snapshot
	reading  reading
}

func newMonitor(cfg Config, o *owners, processes Processes, kernel kernelSide, probes []loaded, log *slog.Logger) *monitor {
	m := &monitor{
		cfg: cfg, owners: o, processes: processes, kernel: kernel, log: log,
		client:  &http.Client{Timeout: time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1, DisableCompression: true}},
		slow:    map[string][]probe.Exemplar{},
		groups:  cgroup.NewNames(cgroup.Roots()...),
		budget:  budget{share: cfg.Budget, patience: 3, maxShift: 6},
		windows: windows{keep: int(cfg.Window / cfg.Interval)},
	}
	for _, p := range probes {
		m.probes = append(m.probes, &probed{loaded: p, state: ProbeState{Status: p.status, Sampling: 1}})
	}
	return m
}

// Snapshot returns the last reading; false before the first.
func (m *monitor) Snapshot() (Snapshot, bool) {
	p := m.published.Load()
	if p == nil {
		return Snapshot{}, false
	}
	return p.snapshot, true
}

// run reads at every tick until ctx is done, and runs what the probes need run. Each
// probe's worker may fail alone: its probe is then degraded, the others go on.
func (m *monitor) run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	failures := make(chan failure, 2*len(m.probes))
	for _, p := range m.probes {
		if p.running == nil {
			continue
		}
		work.Go(func() error {
			if err := p.running.Exemplars(ctx, m.keepSlow); err != nil {
				failures <- failure{p, fmt.Errorf("no slow events: %w", err)}
			}
			return nil
		})
		if w, ok := p.running.(worker); ok {
			work.Go(func() error {
				if err := w.Run(ctx); err != nil {
					failures <- failure{p, err}
				}
				return nil
			})
		}
	}
	work.Go(func() error { return m.loop(ctx, failures) })
	err := work.Wait()
	m.client.CloseIdleConnections()
	return err
}

// failure is the end of a probe's worker.
type failure struct {
	probe *probed
	err   error
}

// loop owns the monitor's state. Two things happen: a tick, upon which everything is
// read, and the failure of a worker.
func (m *monitor) loop(ctx context.Context, failures <-chan failure) error {
	tick := time.NewTicker(m.cfg.Interval)
	defer tick.Stop()
	m.read(ctx, time.Now())
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-failures:
			m.setState(f.probe, probe.Degraded, f.err.Error())
		case now := <-tick.C:
			m.read(ctx, now)
			m.exportLast(ctx)
		}
	}
}

// exportLast hands on the last reading, within one interval.
func (m *monitor) exportLast(ctx context.Context) {
	if m.export == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Interval/2)
	defer cancel()
	r := m.published.Load().reading
	series := make([]probe.Series, 0, len(r.series))
	for k, h := range r.series {
		series = append(series, probe.Series{Probe: k.Probe, Kind: k.Kind, Owner: k.Owner, Target: k.Target, Hist: h})
	}
	counts := make([]probe.Count, 0, len(r.counts))
	for k, n := range r.counts {
		counts = append(counts, probe.Count{Probe: k.Probe, Kind: k.Kind, Owner: k.Owner, Target: k.Target, Reason: k.Reason, N: n})
	}
	err := m.export.Export(ctx, r.at, series, counts)
	if failed := err != nil; failed != m.exportFailed {
		m.exportFailed = failed
		m.log.Warn("export of readings", "works", !failed, "err", err)
	}
}

// read does one round: who is there, what has been counted, what it cost, what it
// means.
func (m *monitor) read(ctx context.Context, now time.Time) {
	var problems []string
	note := func(err error) {
		if err != nil {
			problems = append(problems, err.Error())
		}
	}
	note(m.watch(ctx, now))
	r := reading{at: now, series: map[seriesKey]hist.Histogram{}, counts: map[seriesKey]uint64{}}
	var queues []probe.Queue
	for _, p := range m.probes {
		q, err := m.readProbe(p, now, &r)
		queues = append(queues, q...)
		note(err)
	}
	note(m.readRuntimes(ctx, &r))
	m.windows.add(r)

	s := Snapshot{At: now, Window: m.windows.span(), Queues: queues, Slow: m.recentSlow(), Watched: len(m.known), Problems: problems}
	s.Latencies = m.windows.latencies(m.cfg.Thresholds)
	s.Counters = m.windows.counts()
	s.Alerts = alerts(m.alerts, s.Latencies, m.cfg.Targets, now)
	s.Causes = causes(s.Latencies, s.Counters, queues, m.cfg.Targets, s.Window.Round(time.Second))
	for _, p := range m.probes {
		s.Probes = append(s.Probes, p.state)
	}
	m.logChanges(m.alerts, s.Alerts)
	m.alerts = s.Alerts
	m.published.Store(&published{s, r})
}

// watch asks who is there and tells the programs.
func (m *monitor) watch(ctx context.Context, now time.Time) error {
	var errs []error
	found, err := m.processes.Processes(ctx)
	if err != nil {
		errs = append(errs, fmt.Errorf("find processes: %w", err))
	} else {
		m.known = found
	}
	watch, taken, refused := m.owners.assign(m.known, now)
	if refused > 0 {
		errs = append(errs, fmt.Errorf("%d processes are not watched: no owner, or more than %d owners", refused, maxOwners))
	}
	for _, slot := range taken {
		for _, p := range m.probes {
			if p.running != nil {
				errs = append(errs, p.running.Forget(slot))
			}
		}
	}
	return errors.Join(append(errs, m.kernel.Watch(watch))...)
}

// readProbe adds what one probe has counted to r, and judges its cost.
func (m *monitor) readProbe(p *probed, now time.Time, r *reading) ([]probe.Queue, error) {
	if p.running == nil {
		return nil, nil
	}
	got, err := p.running.Read()
	if err != nil {
		return nil, err
	}
	for _, s := range got.Series {
		k := seriesKey{Probe: s.Probe, Kind: s.Kind, Owner: m.name(s.Owner, s.Cgroup, now), Target: s.Target}
		h := r.series[k]
		h.Add(&s.Hist)
		r.series[k] = h
	}
	for _, c := range got.Counts {
		r.counts[seriesKey{Probe: c.Probe, Kind: c.Kind, Owner: m.name(c.Owner, c.Cgroup, now), Target: c.Target, Reason: c.Reason}] += c.N
	}
	lost := make(map[probe.Reason]uint64, len(got.Lost))
	for _, l := range got.Lost {
		lost[l.Reason] = l.N
	}
	p.state.Lost = lost
	return got.Queues, m.spend(p, now)
}

// name calls what nobody has named after its control group.
func (m *monitor) name(o probe.Owner, group uint64, now time.Time) probe.Owner {
	if o == (probe.Owner{}) && group != 0 {
		o.Name = m.groups.Name(group, now)
	}
	return o
}

// spend compares what a probe has used since the last reading with the budget.
func (m *monitor) spend(p *probed, now time.Time) error {
	cost, err := p.throttle.Cost()
	if err != nil {
		return err
	}
	took := now.Sub(p.costAt)
	first := p.costAt.IsZero()
	events, used := cost.Events-p.cost.Events, cost.Runtime-p.cost.Runtime
	p.cost, p.costAt = cost, now
	if first || took <= 0 {
		return nil
	}
	p.state.Share = used.Seconds() / took.Seconds()
	p.state.Rate = float64(events) / took.Seconds()
	p.state.Estimated = cost.Estimated
	if events > 0 {
		p.state.EventCost = used / time.Duration(events)
	}
	before := p.spending
	var notice string
	p.spending, notice = m.budget.next(before, p.state.Share)
	if notice == "" {
		return nil
	}
	if p.spending.Off {
		m.setState(p, probe.Off, notice)
		return p.throttle.Detach()
	}
	p.state.Sampling = 1 << p.spending.Shift
	if p.spending.Shift > 0 {
		m.setState(p, probe.Degraded, notice)
	} else {
		m.setState(p, p.status.State, p.status.Why)
	}
	return p.throttle.Sample(p.spending.Shift)
}

func (m *monitor) setState(p *probed, state probe.State, why string) {
	p.state.State, p.state.Why = state, why
	logState(m.log, p.state.Status)
}

// readRuntimes asks every process that serves metrics what its own scheduler and
// collector say. One that does not answer does not hold up the others.
func (m *monitor) readRuntimes(ctx context.Context, r *reading) error {
	type answer struct {
		owner probe.Owner
		kinds map[string]hist.Histogram
		err   error
	}
	answers := make([]answer, len(m.known))
	var work errgroup.Group
	work.SetLimit(8)
	for i, p := range m.known {
		if p.Metrics == "" {
			continue
		}
		work.Go(func() error {
			kinds, err := goruntime.Read(ctx, m.client, p.Metrics)
			answers[i] = answer{p.Owner, kinds, err}
			return nil
		})
	}
	_ = work.Wait()
	var errs []error
	for _, a := range answers {
		if a.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", cmp.Or(a.owner.Name, a.owner.Service), a.err))
		}
		for kind, h := range a.kinds {
			k := seriesKey{Probe: goruntime.Name, Kind: kind, Owner: a.owner}
			sum := r.series[k]
			sum.Add(&h)
			r.series[k] = sum
		}
	}
	return errors.Join(errs...)
}

// keepSlow keeps the newest slow events of each probe; the oldest give way.
func (m *monitor) keepSlow(e probe.Exemplar) {
	m.slowMu.Lock()
	defer m.slowMu.Unlock()
	kept := m.slow[e.Probe]
	if len(kept) >= maxSlow {
		kept = slices.Delete(kept, 0, len(kept)-maxSlow+1)
	}
	m.slow[e.Probe] = append(kept, e)
}

func (m *monitor) recentSlow() []probe.Exemplar {
	m.slowMu.Lock()
	defer m.slowMu.Unlock()
	var out []probe.Exemplar
	for _, kept := range m.slow {
		out = append(out, kept...)
	}
	slices.SortStableFunc(out, func(a, b probe.Exemplar) int { return b.At.Compare(a.At) })
	return out
}

func (m *monitor) logChanges(before, after []Alert) {
	fired, resolved := changes(before, after)
	for _, a := range fired {
		m.log.Warn("slow in the kernel", "service", a.Owner.Service, "pool", a.Owner.Pool, "what", a.Text)
	}
	for _, a := range resolved {
		m.log.Info("no longer slow in the kernel", "service", a.Owner.Service, "pool", a.Owner.Pool, "kind", a.Kind, "target", a.Target)
	}
}

// logState says in one line how well a probe works.
func logState(log *slog.Logger, s probe.Status) {
	level := slog.LevelInfo
	if s.State != probe.On {
		level = slog.LevelWarn
	}
	args := []any{"probe", s.Probe, "state", string(s.State)}
	if s.Why != "" {
		args = append(args, "why", s.Why)
	}
	if s.State != probe.Off {
		args = append(args, "source", s.Source)
	}
	log.Log(context.Background(), level, "kernel probe", args...)
}

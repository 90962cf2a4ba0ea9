package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Circle follows one fault all the way round, and writes the report to out in
// cfg.Format. The error says that the run itself did not work; whether the promises
// held is Report.OK.
func Circle(ctx context.Context, cfg Config, out io.Writer, log *slog.Logger) (Report, error) {
	if err := cfg.Validate(); err != nil {
		return Report{}, fmt.Errorf("load circle: %w", err)
	}
	if cfg.Cores[cfg.FaultPool] == "" {
		return Report{}, fmt.Errorf("load circle: fault pool: no admin address of core in pool %q", cfg.FaultPool)
	}
	if cfg.FaultConnect {
		cfg.FaultLatency, cfg.FaultErrors = 0, 0
	}
	var s story
	_, err := run(ctx, cfg, log, func(ctx context.Context, l *lab) error {
		s = story{lab: l, crowd: l.crowd(cfg.FaultGroup), begin: l.start}
		return s.tell(ctx)
	})
	if err != nil {
		return Report{}, fmt.Errorf("load circle: %w", err)
	}
	r := s.report()
	if err := write(out, cfg.Format, r, r.text); err != nil {
		return r, fmt.Errorf("write report: %w", err)
	}
	return r, nil
}

// story is what is done to the product, and when it was.
type story struct {
	*lab
	crowd *crowd // the one that is hurt

	begin             time.Time // of the baseline
	faultOn, faultOff time.Time
	isolate, release  decide.Decision // zero where they did not come
	moved, back       time.Time       // all sockets
	movedN, backN     int
}

// fault says what is done to the pool.
func (c Config) fault() string {
	if c.FaultConnect {
		return "a dependency is slow to accept connections"
	}
	return fmt.Sprintf("+%v, %.0f%% errors", c.FaultLatency, 100*c.FaultErrors)
}

// tell does it: baseline, fault, detection, isolation, fault off, release, after. A
// sixth of the duration goes to each end.
func (s *story) tell(ctx context.Context) error {
	if s.crowd == nil {
		return fmt.Errorf("fault group: there is no group %q", s.cfg.FaultGroup)
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	edge, hurt := s.cfg.Duration/6, s.cfg.Duration/4
	s.log.Info("baseline", "for", edge)
	if !until(ctx, s.begin.Add(edge)) {
		return ctx.Err()
	}
	if err := s.hurt(ctx, hurt); err != nil {
		return err
	}
	if !s.isolate.Time.IsZero() {
		s.awaitRelease(ctx, s.begin.Add(s.cfg.Duration-edge))
	}
	end := s.begin.Add(s.cfg.Duration)
	if late := s.release.Time.Add(edge); late.After(end) {
		end = late
	}
	until(ctx, end)
	return ctx.Err()
}

// settled makes sure that the group is served by its own pool, as a run before may have
// left it isolated.
func (s *story) settled(ctx context.Context) error {
	known, err := s.control.Groups(ctx)
	if err != nil {
		return fmt.Errorf("list groups: %w", err)
	}
	free := true // of decisions of the past
	for _, g := range known {
		free = free && (string(g.Group) != s.crowd.id || g.State == ctlapi.StateHome)
	}
	home := func() bool {
		_, _, ok := arrived(s.crowd.sockets.snapshot(), len(s.crowd.people), s.crowd.Pool, time.Time{})
		return ok
	}
	if free && home() {
		return nil
	}
	s.log.Info("group is not at home, releasing it", "group", s.crowd.id)
	if _, err := s.control.Release(ctx, group.ID(s.crowd.id), order("start of a load run", momentarily, nil)); err != nil {
		return fmt.Errorf("release group %s: %w", s.crowd.id, err)
	}
	if !poll(ctx, time.Now().Add(s.cfg.Wait), home) {
		return fmt.Errorf("group %s: its sockets are not in pool %s", s.crowd.Name, s.crowd.Pool)
	}
	s.begin = time.Now()
	return nil
}

// hurt switches the fault on for a while and watches the product get out of it.
func (s *story) hurt(ctx context.Context, hurt time.Duration) (err error) {
	admin := s.cfg.Cores[s.cfg.FaultPool]
	dependency := ""
	if s.cfg.FaultConnect {
		addr, stop, err := slowDependency()
		if err != nil {
			return err
		}
		defer stop()
		dependency = addr
	}
	s.faultOn = time.Now() // before the call, so that what is promised since is not flattered
	err = s.admin.breakCore(ctx, admin, faultRequest{
		LatencyMS: s.cfg.FaultLatency.Milliseconds(), ErrorRatio: s.cfg.FaultErrors, Dial: dependency,
		ForMS: (s.cfg.Duration + s.cfg.ReleaseWait).Milliseconds(),
	})
	if err != nil {
		return err
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, s.admin.mendCore(clean, admin))
		s.faultOff = time.Now()
		s.log.Info("fault is off", "pool", s.cfg.FaultPool)
	}()
	s.log.Info("fault is on", "pool", s.cfg.FaultPool, "fault", s.cfg.fault())

	s.isolate = s.await(ctx, decide.Isolate, s.faultOn, s.faultOn.Add(s.cfg.Wait))
	if !s.isolate.Time.IsZero() {
		s.moved, s.movedN = s.awaitSockets(ctx, semconv.PoolIsolated, s.isolate.Time)
		s.log.Info("sockets moved", "n", s.movedN, "of", len(s.crowd.people))
	}
	until(ctx, s.faultOn.Add(hurt))
	return ctx.Err()
}

// awaitRelease waits for the policy's release, and asks for one when it does not come.
func (s *story) awaitRelease(ctx context.Context, by time.Time) {
	s.release = s.await(ctx, decide.Release, s.isolate.Time, by.Add(s.cfg.ReleaseWait))
	if s.release.Time.IsZero() && ctx.Err() == nil {
		s.log.Warn("no release by policy in time, asking for one")
		since := time.Now()
		if _, err := s.control.Release(ctx, group.ID(s.crowd.id), order("load run waited long enough", momentarily, nil)); err != nil {
			s.log.Error("release", "error", err)
			return
		}
		s.release = s.await(ctx, decide.Release, since, since.Add(s.cfg.Wait))
	}
	if !s.release.Time.IsZero() {
		s.back, s.backN = s.awaitSockets(ctx, s.crowd.Pool, s.isolate.Time) // some came at a step of it
		s.log.Info("sockets are back", "n", s.backN, "of", len(s.crowd.people))
	}
}

// await waits for a decision about the group, and then for its acknowledgment.
func (s *story) await(ctx context.Context, action decide.Action, since, by time.Time) decide.Decision {
	about := func(d decide.Decision) bool {
		return d.Action == action && whole(d) && string(d.Group) == s.crowd.id && !d.Time.Before(since)
	}
	d, ok := s.decisions.await(ctx, by, about)
	if !ok {
		return decide.Decision{}
	}
	s.log.Info("decision", "action", d.Action, "group", d.Group, "reason", d.Reason, "causes", d.Causes, "after", d.Time.Sub(since))
	if applied, ok := s.decisions.programmed(ctx, d.ID, time.Now().Add(s.cfg.Wait)); ok {
		d = applied
	}
	return d
}

// whole says that a decision is about all of a group, and no step of a release.
func whole(d decide.Decision) bool {
	return d.Action != decide.Release || d.Share == 0 || d.Share == 100
}

func (s *story) awaitSockets(ctx context.Context, pool string, since time.Time) (last time.Time, n int) {
	poll(ctx, time.Now().Add(s.cfg.Wait), func() (ok bool) {
		last, n, ok = arrived(s.crowd.sockets.snapshot(), len(s.crowd.people), pool, since)
		return ok
	})
	if n < len(s.crowd.people) {
		return time.Time{}, n
	}
	return last, n
}

// report puts together what was done and what was seen.
func (s *story) report() Report {
	cfg := s.cfg
	r := Report{
		Schema:  CircleSchema,
		Started: s.begin, Ended: s.end,
		Settings: settings(cfg),
		Timeline: timeline(s.faultOn, s.marks()),
	}
	r.Settings.FaultGroup, r.Settings.FaultPool = cfg.FaultGroup, cfg.FaultPool
	r.Settings.FaultLatency, r.Settings.FaultErrors = ms(cfg.FaultLatency), cfg.FaultErrors
	groups := map[string]bool{}
	for _, c := range s.crowds {
		groups[c.id] = true
		r.Groups = append(r.Groups, s.group(c))
	}
	r.Decisions = s.decisions.since(s.begin, groups)
	r.Promises = circlePromises(r.Timeline, r.Groups, cfg.Limits)
	r.OK = allHeld(r.Promises)
	return r
}

func (s *story) group(c *crowd) GroupReport {
	samples, tries := c.record.snapshot()
	calm, free := s.faultOn, s.release.Time
	if free.IsZero() {
		free = s.end
	}
	out := later(s.moved, s.isolate.Programmed)
	if out.IsZero() || s.moved.IsZero() {
		out = free
	}
	far := s.end.Add(time.Hour)
	return GroupReport{
		Name: c.Name, ID: c.id, Faulty: c == s.crowd,
		Phases: Phases{
			Before:   summarize(samples, tries, s.begin, calm),
			Fault:    summarize(samples, tries, calm, out),
			Isolated: summarize(samples, tries, out, free),
			After:    summarize(samples, tries, free, far),
		},
		Total:    summarize(samples, tries, s.begin, far),
		Sockets:  tally(c.sockets.snapshot()),
		Messages: c.ledger.Verdict(),
	}
}

// marks are the moments of the story, in the order in which they should come.
func (s *story) marks() []Mark {
	samples, tries := s.crowd.record.snapshot()
	before := summarize(samples, tries, s.begin, s.faultOn)
	bad := firstBadSecond(samples, tries, s.faultOn, s.end, time.Duration(2*before.P95*float64(time.Millisecond))+s.cfg.FaultLatency/2)
	var firstIsolated, firstReleased time.Time
	if !s.isolate.Time.IsZero() {
		firstIsolated = firstServed(tries, semconv.PoolIsolated, s.isolate.Time)
	}
	if !s.release.Time.IsZero() {
		firstReleased = firstServed(tries, s.crowd.Pool, s.release.Time)
	}
	all := len(s.crowd.people)
	return []Mark{
		{Event: EventLoadOn, Time: s.begin},
		{Event: EventFaultOn, Time: s.faultOn, Note: "pool " + s.cfg.FaultPool + ": " + s.cfg.fault()},
		{Event: EventFirstBad, Time: bad, Note: "as the clients saw it"},
		{Event: EventDecision, Time: s.isolate.Time, Note: byNote(s.isolate)},
		{Event: EventProgrammed, Time: s.isolate.Programmed, Note: versionNote(s.isolate)},
		{Event: EventFirstIsolated, Time: firstIsolated},
		{Event: EventSocketsMoved, Time: s.moved, Note: fmt.Sprintf("%d of %d", s.movedN, all)},
		{Event: EventFaultOff, Time: s.faultOff},
		{Event: EventRelease, Time: s.release.Time, Note: byNote(s.release)},
		{Event: EventReleaseApplied, Time: s.release.Programmed, Note: versionNote(s.release)},
		{Event: EventFirstReleased, Time: firstReleased},
		{Event: EventSocketsBack, Time: s.back, Note: fmt.Sprintf("%d of %d", s.backN, all)},
		{Event: EventLoadOff, Time: s.end},
	}
}

func byNote(d decide.Decision) string {
	if d.By == "" {
		return ""
	}
	return "by " + d.By
}

func versionNote(d decide.Decision) string {
	if d.Version == "" {
		return ""
	}
	return "version " + d.Version
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

package controlplane

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/controlplane/access"
	"github.com/tracegate/tracegate/controlplane/blame"
	"github.com/tracegate/tracegate/controlplane/ctl"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/controlplane/history"
	"github.com/tracegate/tracegate/controlplane/notify"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// loop owns all state of the control plane. Only its goroutine touches it.
type loop struct {
	cfg      Config
	edges    *server.Server
	board    *ctl.Board
	recorder *recorder
	causes   *causes
	live     *services // their settings
	roster   *roster
	whys     *whys
	warms    *warms
	history  *history.Log
	notifier *notify.Notifier
	tracer   trace.Tracer
	metrics  *metrics
	fates    chan source.Fate // has room for one; nil: nobody asks
	told     source.Fate
	log      *slog.Logger
	journal  *durable.Journal

	// What the sources say, and what came of it.
	wanted    wish                     // newest valid policy and endpoints
	drains    []ctlapi.Drain           // of instances, by operators; replaced, never edited
	sources   map[string]ctlapi.Source // shown in status
	bad       wish                     // the documents that edges refused; nil where they did not
	rejection *ctlapi.Rejection        // what they said
	refusals  map[resourceID]refusal   // resources that are in quarantine
	held      map[blame.Rule]heldRule  // rules that are
	updated   *update                  // the last policy that is in force, or on its way; nil: the first
	undone    undone
	joined    []changed // instances, lately
	key       []byte    // signs the last good configuration
	goodLost  string    // why that of an earlier run is not used
	aimed     windows   // that were asked for last
	certs     *certificates
	keys      *keys // of identity providers
	tokens    *tokens

	// What gRPC clients are given, and edges.
	clients  clients
	renderer renderer
	trial    *onTrial     // a policy that one edge has and the others have not; nil: none is
	passed   []byte       // the last document that a trial found good
	pending  *programming // not acknowledged by all yet
	good     *programming // the last that was
	refused  string       // why wanted makes no plan
	pinEnd   time.Time    // when a pin of a rule ends that edges were given; zero: none does

	// What was decided and on what.
	state      decide.State
	last       measurement
	newest     time.Time // start of the newest span ever seen
	watermark  time.Time // the newest
	quiet      bool      // there is data, and no traffic in it
	stale      string    // why nothing is decided
	faulty     bool      // the store did not answer the last measurement
	notDurable string    // why no decision takes effect
	// unjournaled are decisions that took effect, and that the state file has and the
	// journal still lacks.
	unjournaled []decide.Decision
	// unexplained are isolations that took effect before anything was known of their
	// causes: a decision is quicker than a connect that times out.
	unexplained []decide.Decision
	unmeasured  []decide.Decision // took effect, and nobody looked yet what came of them
	untold      []untold          // oldest first

	placementVersion int64
	generations      map[string]int64 // of the Envoys that serve, by edge
}

// inputs are where everything comes from that changes the loop's state.
type inputs struct {
	policies  <-chan source.Update[policy.Policy]
	endpoints <-chan source.Update[policy.Endpoints]
	certs     <-chan []source.CertificateUpdate
	keys      <-chan source.KeyUpdate
	tokens    <-chan source.Update[[]access.Token]
	measured  <-chan measurement
	orders    <-chan orderRequest
	drains    <-chan drainRequest
	reapplied <-chan reapplied // documents that an operator brings
	settings  <-chan source.Documents
	edges     <-chan struct{}
	want      chan windows         // the measuring goroutine's; has room for one
	wantKeys  chan []source.KeySet // of who asks for keys; has room for one
}

const (
	journalFile = "decisions.jsonl"
	journalSize = 8 << 20
	stateFile   = "state.json"
	goodFolder  = "lastgood" // a file for each class of edges
	goodKey     = "lastgood.key"
	auditFile   = "audit.jsonl"
)

// newLoop finishes a loop that has its parts. It loads what an earlier run left: the
// moves of groups, the last good configuration, which edges get before any source has
// been read, and decisions.
func newLoop(l *loop, reg prometheus.Registerer) (*loop, error) {
	l.sources = map[string]ctlapi.Source{
		"policy":    {File: l.cfg.policySource(), Error: "not read yet"},
		"endpoints": {File: l.cfg.Endpoints, Error: "not read yet"},
	}
	l.refusals, l.held = map[resourceID]refusal{}, map[blame.Rule]heldRule{}
	l.state = decide.State{Groups: map[group.ID]decide.GroupState{}}
	l.stale = "no telemetry yet"
	if err := l.loadState(); err != nil {
		return nil, err
	}
	if err := l.loadDrains(); err != nil {
		return nil, err
	}
	if err := l.loadGood(); err != nil {
		return nil, err
	}
	l.keys.load(l.path(keysFile), l.key)
	past, err := l.loadDecisions()
	if err != nil {
		return nil, err
	}
	if l.notifier, err = notify.New(l.cfg.Notify, past, time.Now(), reg, l.log); err != nil {
		return nil, fmt.Errorf("prepare webhooks: %w", err)
	}
	l.recorder.addPast(past, time.Now())
	journal, err := durable.OpenJournal(l.path(journalFile), journalSize)
	if err != nil {
		return nil, err
	}
	l.journal = journal
	// The last run may have died after a move was decided, and even acknowledged, but
	// before it was part of the last good file. Where nothing is new this makes the
	// same version again.
	l.program(time.Now(), nil)
	l.show()
	return l, nil
}

func (l *loop) close() {
	if err := l.journal.Close(); err != nil {
		l.log.Warn("close journal", "error", err)
	}
}

func (l *loop) path(name string) string { return filepath.Join(l.cfg.Dir, name) }

// run is the owner. What can happen:
//
//  1. a source has a new reading, valid or not;
//  2. a certificate's files have changed, or the tokens of the control API, or an identity provider answered;
//  3. groups have been measured, and the edge of a trial;
//  4. an operator orders something, about a group or an instance;
//  5. an edge or gRPC client connected, went, acknowledged or rejected;
//  6. edges have taken too long to acknowledge;
//  7. a rule's pin to a pool ends, the drain of an instance, a quarantine, the time of a trial, or the wait for causes;
//  8. something became known of a decision;
//  9. an operator brings a document that was taken back;
//  10. settings of services were found, or an instance of one came, went or answered;
//  11. the end.
func (l *loop) run(ctx context.Context, in inputs) error {
	late, pin := time.NewTimer(l.cfg.AckTimeout), time.NewTimer(l.untilPin(time.Now()))
	defer late.Stop()
	defer pin.Stop()
	for {
		waiting := l.pending
		select {
		case u := <-in.policies:
			l.readPolicy(u)
		case u := <-in.endpoints:
			l.readEndpoints(u)
		case us := <-in.certs:
			l.certs.read(us)
			l.program(time.Now(), nil)
		case u := <-in.keys:
			if l.keys.read(u, time.Now()) {
				l.program(time.Now(), nil)
			}
		case u := <-in.tokens:
			l.readTokens(u)
		case m := <-in.measured:
			l.evaluate(m)
		case r := <-in.orders:
			d, err := l.order(r)
			l.show() // before the answer: who reads the status next must find it there
			r.reply <- answered[decide.Decision]{d, err}
		case r := <-in.drains:
			d, err := l.drain(r, time.Now())
			l.show()
			r.reply <- answered[ctlapi.Drain]{d, err}
		case r := <-in.reapplied:
			if r.key != "" {
				l.live.reapply(r.key, r.document, l.last.long, time.Now())
			} else {
				l.reapply(r.document)
			}
		case ds := <-in.settings:
			l.live.readAll(ds, l.last.long, time.Now())
		case <-l.roster.changed:
			l.live.answered(l.roster.list(), l.last.long, time.Now())
		case <-in.edges:
			l.serveClients()
			l.settle(time.Now(), false)
			l.followEdges(time.Now())
		case <-late.C:
			l.settle(time.Now(), true)
		case now := <-pin.C:
			l.endPin(now)
			l.endDrains(now)
		case f := <-l.whys.found:
			l.addCauses(f, time.Now())
			l.answered(f)
		case f := <-l.warms.found:
			l.addRoom(f)
		case <-ctx.Done():
			return nil
		}
		l.try(time.Now())
		if l.pending != waiting {
			late.Reset(l.cfg.AckTimeout)
		}
		l.tellDue(time.Now())
		pin.Reset(l.untilPin(time.Now()))
		l.aim(in.want)
		l.aimKeys(in.wantKeys)
		l.tellFate()
		l.show()
	}
}

// endPin makes a new plan where a pin or a quarantine has ended.
func (l *loop) endPin(now time.Time) {
	pin, retry := l.pinEnd, l.nextRetry()
	switch {
	case !pin.IsZero() && !now.Before(pin):
		l.log.Info("a rule's pin to a pool has ended", "until", pin)
	case !retry.IsZero() && !now.Before(retry):
		l.log.Info("edges are asked again about what they refused")
	default:
		return
	}
	l.program(now, nil)
}

// aim tells the measuring goroutine what to measure, when that has changed.
func (l *loop) aim(want chan windows) {
	p := l.effective().policy
	if p == nil {
		return
	}
	w := windows{
		quick: p.Decide.QuickWindow, short: p.Decide.ShortWindow, long: p.Decide.LongWindow, fresh: p.Decide.StaleAfter,
		ignore: p.Decide.IgnoreRoutes, trial: l.trial.window(l.cfg.Trial),
	}
	if w.equal(l.aimed) {
		return
	}
	l.aimed = w
	select {
	case <-want: // not taken yet, and out of date; nobody else sends
	default:
	}
	want <- w
}

func (l *loop) readPolicy(u source.Update[policy.Policy]) {
	if u.From != "" {
		l.history.Suggest(u.Raw, u.From, u.Reason)
	}
	if !l.read("policy", u.Err) {
		if u.Raw != nil {
			l.remember(l.history.Invalid(u.Raw, time.Now(), l.problems("policy")))
		}
		return
	}
	l.wanted.policy, l.wanted.rawPolicy = &u.Value, u.Raw
	l.bad.rawPolicy, l.rejection = nil, nil
	now := time.Now()
	if !l.again(u.Raw) {
		l.forget()
		l.remember(l.history.Add(u.Raw, now))
	}
	l.program(now, nil)
}

// remember notes that the history of policies lacks something; what is in force does
// not depend on it.
func (l *loop) remember(err error) {
	if err != nil {
		l.metrics.durable.WithLabelValues("policies").Inc()
		l.log.Error("history of policies", "error", err)
	}
}

func (l *loop) readEndpoints(u source.Update[policy.Endpoints]) {
	if !l.read("endpoints", u.Err) {
		return
	}
	src := l.sources["endpoints"]
	src.Lost = u.Lost
	l.sources["endpoints"] = src
	l.metrics.lost.Set(float64(len(u.Lost)))
	if l.wanted.endpoints != nil && bytes.Equal(l.wanted.rawEndpoints, u.Raw) {
		return // only what is lost has changed
	}
	now := time.Now()
	if l.wanted.endpoints != nil {
		l.joined = append(l.joined, joined(*l.wanted.endpoints, u.Value, now)...)
		l.joined = l.joined[max(0, len(l.joined)-maxJoined):]
	}
	l.wanted.endpoints, l.wanted.rawEndpoints = &u.Value, u.Raw
	l.bad.rawEndpoints = nil
	l.followDrains(now)
	l.program(now, nil)
}

// read keeps what status shows of a source; a bad reading changes nothing else.
func (l *loop) read(name string, err error) bool {
	s := l.sources[name]
	if err != nil {
		s.Error, s.Problems = err.Error(), nil
		if invalid := new(policy.Error); errors.As(err, &invalid) {
			s.Problems = invalid.Problems
		}
		l.metrics.sourceError.WithLabelValues(name).Set(1)
		l.log.Warn("source cannot be used, the version before it goes on", "source", name, "file", s.File, "error", err)
	} else {
		s.Error, s.Problems, s.Loaded = "", nil, time.Now()
		l.metrics.sourceError.WithLabelValues(name).Set(0)
		l.log.Info("source read", "source", name, "file", s.File)
	}
	l.sources[name] = s
	return err == nil
}

// problems are why a source cannot be used, each with file and line.
func (l *loop) problems(name string) string {
	s := l.sources[name]
	var out []string
	for _, p := range s.Problems {
		out = append(out, p.In(s.File))
	}
	return cmp.Or(strings.Join(out, "; "), s.Error)
}

// evaluate decides on a measurement, or notes why it cannot.
func (l *loop) evaluate(m measurement) {
	_ = l.journalRest() // where it fails, carryOut says so
	w := l.effective()
	if w.policy == nil {
		return
	}
	l.metrics.saturated(l.last.saturation, m.saturation)
	l.last = m
	for _, st := range m.long {
		l.newest = later(l.newest, st.Newest)
	}
	for _, st := range m.short {
		l.newest = later(l.newest, st.Newest)
	}
	l.watermark = later(l.watermark, m.watermark)
	now := time.Now()
	in := decide.Input{
		Now: now, Causes: l.causes.at(now), Quick: m.quick, Short: m.short, Long: m.long, Newest: l.newest, Watermark: l.watermark,
		Saturation: m.saturation, Homes: w.policy.Homes(), Isolatable: w.isolatable(), Instances: w.policy.InstancesOf(), Change: l.lastChange(),
	}
	if m.err != nil {
		in.Unavailable = "statistics are not to be had: " + m.err.Error()
	}
	l.noteStale(in.Stale(w.policy.Decide), m.err != nil)
	l.quiet = in.Quiet(w.policy.Decide)
	l.explain(in.Causes, now)
	if l.stale == "" {
		l.measureOutcomes(w.policy.Decide, m.short, now)
	}
	ds, next := decide.Decide(w.policy.Decide, l.state, in)
	if len(ds) == 0 {
		l.state = next
		return
	}
	// An error leaves the state as it was: the next evaluation decides again.
	_ = l.carryOut(ds, next)
}

// noteStale says when decisions stop and begin again. A store that does not answer
// is a fault; nothing measured is as often a quiet hour, so that is not shouted.
func (l *loop) noteStale(why string, fault bool) {
	level := slog.LevelDebug
	if fault || l.faulty {
		level = slog.LevelWarn
	}
	switch {
	case why != "" && (l.stale == "" || fault && !l.faulty):
		l.log.Log(context.Background(), level, "nothing is decided", "reason", why)
	case why == "" && l.stale != "":
		l.log.Log(context.Background(), level, "telemetry is fresh, groups are decided on")
	}
	l.faulty = fault
	l.stale = why
	result, stale := "decided", 0.0
	if why != "" {
		result, stale = "stale", 1
	}
	l.metrics.evaluations.WithLabelValues(result).Inc()
	l.metrics.stale.Set(stale)
}

// carryOut makes decisions durable, then effective. They get their IDs here. One write does
// it: the state file has them beside what follows from them. The journal gets them behind
// that, so it has none that never took effect. (The journal first lost: where the state
// could not be kept, each evaluation wrote down a move that never was.)
func (l *loop) carryOut(ds []decide.Decision, next decide.State) error {
	for i := range ds {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("name decision: %w", err)
		}
		ds[i].ID = id.String()
	}
	if err := l.journalRest(); err != nil {
		return err
	}
	if err := l.keep(stateFile, func() error { return l.saveState(next, ds) }); err != nil {
		return err
	}
	l.state, l.unjournaled = next, slices.Clone(ds)
	_ = l.journalRest() // the state file has them, until the next decision
	moved := false
	for _, d := range ds {
		moved = moved || d.Action.Moves()
		l.metrics.decisions.WithLabelValues(string(d.Action), who(d.By)).Inc()
		l.recorder.add(d)
		l.tell(d)
		if len(d.Room) > 0 {
			l.warms.ask(d, l.effective().isolatable())
		}
		if d.Action == decide.RollBack {
			l.takeBack(d)
		}
		l.log.Info("decided", "action", string(d.Action), semconv.Group, string(d.Group), "from", d.FromPool, "to", d.ToPool, "by", d.By, "reason", d.Reason)
	}
	l.board.Record(ds...)
	if moved {
		l.program(time.Now(), ds)
	}
	return nil
}

// journalRest appends what the journal lacks. Nothing new is decided before that is done.
func (l *loop) journalRest() error {
	for len(l.unjournaled) > 0 {
		if err := l.keep(journalFile, func() error { return l.journal.Append(l.unjournaled[0]) }); err != nil {
			return err
		}
		l.unjournaled = l.unjournaled[1:]
	}
	return nil
}

// keep notes a write that did not work; without it nothing takes effect.
func (l *loop) keep(file string, write func() error) error {
	err := write()
	if err == nil {
		l.notDurable = ""
		return nil
	}
	l.metrics.durable.WithLabelValues(file).Inc()
	if l.notDurable == "" {
		l.log.Error("decisions cannot be kept, so none take effect", "file", file, "error", err)
	}
	l.notDurable = err.Error()
	return err
}

func who(by string) string {
	if by == decide.ByPolicy {
		return by
	}
	return "operator"
}

// order carries out an operator's order.
func (l *loop) order(r orderRequest) (decide.Decision, error) {
	w := l.effective()
	if w.policy == nil {
		return decide.Decision{}, &protocol.Error{Code: protocol.CodeUnavailable, Message: "no valid policy yet", Temporary: true}
	}
	if r.confirm != "" {
		return l.confirm(w, r)
	}
	g, err := l.known(r)
	if err != nil {
		return decide.Decision{}, err
	}
	o := decide.Order{
		Group: g, Home: w.home(g.Color), By: r.order.By, Reason: r.order.Reason,
		For: time.Duration(r.order.ForMS) * time.Millisecond, Requests: r.order.Requests, Pool: r.order.Pool, Now: time.Now(),
	}
	apply := l.state.Release
	switch r.action {
	case decide.Shed:
		apply = l.state.Shed
	case decide.Lift:
		if l.state.Groups[g.ID()].Shed == 0 {
			return decide.Decision{}, protocol.NewError(protocol.CodeNotFound, "group", "the group has no limit")
		}
		apply = l.state.Lift
	case decide.Pin:
		if !w.hasPool(o.Pool) {
			return decide.Decision{}, protocol.NewError(protocol.CodeInvalidArgument, "pool", fmt.Sprintf("no service has a pool %q", o.Pool))
		}
		apply = l.state.Pin
	case decide.Isolate:
		if len(w.policy.Isolatable()) == 0 {
			return decide.Decision{}, &protocol.Error{Code: protocol.CodeInvalidArgument, Message: "no service has a pool \"" + semconv.PoolIsolated + "\""}
		}
		apply = l.state.Isolate
	}
	d, next := apply(o)
	return l.obey(d, next)
}

// obey carries out one decision of a person.
func (l *loop) obey(d decide.Decision, next decide.State) (decide.Decision, error) {
	ds := []decide.Decision{d}
	if err := l.carryOut(ds, next); err != nil {
		return decide.Decision{}, &protocol.Error{Code: protocol.CodeUnavailable, Message: "the order could not be kept on disk: " + err.Error(), Temporary: true}
	}
	return ds[0], nil
}

// confirm carries out what a decision recommended.
func (l *loop) confirm(w wish, r orderRequest) (decide.Decision, error) {
	advice, ok := l.board.Decision(r.confirm)
	if !ok {
		return decide.Decision{}, protocol.NewError(protocol.CodeNotFound, "decision", "no such decision is remembered")
	}
	d, next, err := l.state.Confirm(w.policy.Decide, advice, r.order.By, r.order.Reason, time.Now())
	if err == nil && d.Action == decide.RollBack && !l.current(*d.Revision) {
		err = outdated("another " + d.Revision.What() + " is in force")
	}
	if err != nil {
		return decide.Decision{}, protocol.NewError(protocol.CodeInvalidArgument, "decision", err.Error())
	}
	return l.obey(d, next)
}

func (l *loop) known(r orderRequest) (group.Group, error) {
	if g, ok := l.state.Groups[r.id]; ok {
		return g.Group(), nil
	}
	if id := r.order.Identity; id != nil {
		c, _ := group.ParseColor(id.Color) // ctl has checked it
		return group.Group{Color: c, Env: id.Env, Tenant: id.Tenant}, nil
	}
	return group.Group{}, &protocol.Error{Code: protocol.CodeNotFound, Field: "group", Message: "no such group was seen"}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (l *loop) loadState() error {
	var s savedState
	err := durable.Load(l.path(stateFile), &s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, durable.ErrCorrupt):
		// Groups go home; nothing else is lost, and the journal says where they were.
		l.log.Error("moves of groups are lost, they are at home", "error", err)
		return nil
	case err != nil:
		return fmt.Errorf("load state: %w", err)
	}
	if s.Decide.Groups != nil {
		l.state = s.Decide
	}
	l.placementVersion, l.unjournaled = s.PlacementVersion, s.Decisions
	return nil
}

// savedState is the state file.
type savedState struct {
	Decide           decide.State `json:"decide"`
	PlacementVersion int64        `json:"placement_version"`
	// Decisions are the last that made Decide what it is; the journal may lack them.
	Decisions []decide.Decision `json:"decisions,omitempty"`
}

func (l *loop) saveState(next decide.State, ds []decide.Decision) error {
	return durable.Save(l.path(stateFile), savedState{Decide: next, PlacementVersion: l.placementVersion, Decisions: ds})
}

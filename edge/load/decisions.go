package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
)

// DecisionsSchema names the form of [DecisionsReport] in JSON.
const DecisionsSchema = "tracegate.load.decisions/1"

// DecisionsReport is the outcome of [Decisions].
type DecisionsReport struct {
	Schema   string        `json:"schema"`
	OK       bool          `json:"ok"`
	Started  time.Time     `json:"started"`
	Ended    time.Time     `json:"ended"`
	Settings Settings      `json:"settings"`
	Faults   []FaultReport `json:"faults"`
	Groups   []GroupTotals `json:"groups"`
	Promises []Promise     `json:"promises"`
}

// FaultReport is one fault, what should have been decided, and what was.
type FaultReport struct {
	Name     string            `json:"name"`
	What     string            `json:"what"`
	Wanted   string            `json:"wanted"`
	Timeline []Mark            `json:"timeline"`
	Done     []decide.Decision `json:"decisions"`    // that changed something at the edge
	Held     int               `json:"holds"`        // that only say why nothing is done
	Wrong    []string          `json:"wrong"`        // of Done
	Missing  []string          `json:"missing"`      // what did not come in time
	Reason   string            `json:"reason"`       // of what was wanted
	Outcome  *decide.Outcome   `json:"outcome"`      // measured by the product afterwards
	Took     float64           `json:"took_seconds"` // all of it
}

// ok says that what was wanted came, and nothing else.
func (r FaultReport) ok() bool { return len(r.Wrong)+len(r.Missing) == 0 }

// The events of a fault, beside those of [Report].
const (
	EventWanted        = "decision"
	EventWantedApplied = "edge_acknowledged"
	EventOver          = "released"
)

// Decisions plays faults, one after the other while crowds press, and holds what the
// policy decides against what each fault asks for: the right action on the right group,
// and nothing else. only names those to play; none: all. policy is the document in force;
// it is put back at the end.
//
// The policy is made quicker for the run (isolation for seconds, a shorter long window),
// so that ten faults take some ten minutes and not an hour; its tests stay as they are.
func Decisions(ctx context.Context, cfg Config, only []string, policy []byte, out io.Writer, log *slog.Logger) (DecisionsReport, error) {
	faults, err := chosen(only)
	if err != nil {
		return DecisionsReport{}, fmt.Errorf("load decisions: %w", err)
	}
	cfg.Duration = time.Duration(len(faults)) * time.Minute // its bound of samples; the faults end it
	if err := cfg.Validate(); err != nil {
		return DecisionsReport{}, fmt.Errorf("load decisions: %w", err)
	}
	quick, err := quickPolicy(policy, cfg.Objective)
	if err != nil {
		return DecisionsReport{}, fmt.Errorf("load decisions: policy: %w", err)
	}
	r := DecisionsReport{Schema: DecisionsSchema, Settings: settings(cfg)}
	l, err := run(ctx, cfg, log, func(ctx context.Context, l *lab) error {
		b := &bench{lab: l, policy: quick}
		return l.within(ctx, quick, policy, "a run of load decisions", func() error {
			for _, f := range faults {
				one, err := b.play(ctx, f)
				if err != nil {
					return fmt.Errorf("%s: %w", f.name, err)
				}
				r.Faults = append(r.Faults, one)
			}
			return nil
		})
	})
	if err != nil {
		return DecisionsReport{}, fmt.Errorf("load decisions: %w", err)
	}
	r.Started, r.Ended = l.start, l.end
	for _, c := range l.crowds {
		r.Groups = append(r.Groups, c.totals(l.start))
	}
	r.Promises = decisionPromises(r)
	r.OK = allHeld(r.Promises)
	if err := write(out, cfg.Format, r, r.text); err != nil {
		return r, fmt.Errorf("write report: %w", err)
	}
	return r, nil
}

// bench plays faults.
type bench struct {
	*lab
	policy []byte // of the run
}

// quickLong is the long window of the quick policy, and for how long an update counts; see
// quickPolicy.
const quickLong = 15 * time.Second

// known says whether the control plane has heard of every group: it does from telemetry,
// some time after the first requests.
func (b *bench) known(ctx context.Context) bool {
	groups, err := b.control.Groups(ctx)
	return err == nil && !slices.ContainsFunc(b.crowds, func(c *crowd) bool {
		return !slices.ContainsFunc(groups, func(g ctlapi.Group) bool { return string(g.Group) == c.id })
	})
}

// ejection is for how long Envoy may leave an instance out that was killed and is back;
// until then sockets of its pool are served by baseline.
const ejection = time.Minute

// calm waits until every group is at home, nothing is limited, and the windows have
// forgotten what was before.
func (b *bench) calm(ctx context.Context) error {
	s, err := b.control.Status(ctx)
	if err != nil {
		return fmt.Errorf("ask for status: %w", err)
	}
	if p, err := b.control.Policy(ctx); err != nil || p.Document != string(b.policy) || s.RolledBack != nil {
		if err := b.putPolicy(ctx, b.policy, "the next fault"); err != nil {
			return err
		}
	}
	if !poll(ctx, time.Now().Add(b.cfg.Wait), func() bool { return b.known(ctx) }) {
		return errors.New("the control plane has not heard of all groups")
	}
	for _, c := range b.crowds {
		if _, err := b.control.Release(ctx, group.ID(c.id), order("the next fault", momentarily, nil)); err != nil {
			return fmt.Errorf("release group %s: %w", c.Name, err)
		}
	}
	if !poll(ctx, time.Now().Add(b.cfg.Wait+ejection), func() bool {
		for _, c := range b.crowds {
			if _, _, ok := arrived(c.sockets.snapshot(), len(c.people), c.Pool, time.Time{}); !ok {
				return false
			}
		}
		return b.connected()
	}) {
		return errors.New("not all sockets are where they belong")
	}
	b.log.Info("calm", "for", b.cfg.Forget)
	if !until(ctx, time.Now().Add(b.cfg.Forget)) {
		return ctx.Err()
	}
	return nil
}

// play is one fault from calm to calm.
func (b *bench) play(ctx context.Context, f decisionFault) (r FaultReport, err error) {
	if err := b.calm(ctx); err != nil {
		return r, err
	}
	r = FaultReport{Name: f.name, What: f.what, Wanted: f.wanted()}
	scene := scene{bench: b, from: time.Now()}
	b.log.Info("fault is on", "fault", f.name, "what", f.what)
	end, err := f.begin(ctx, &scene)
	mended := func() error {
		if end == nil {
			return nil
		}
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTime)
		defer cancel()
		stop := end
		end = nil
		return stop(clean)
	}
	defer func() { err = errors.Join(err, mended()) }()
	if err != nil {
		return r, err
	}
	var marks []Mark
	mark := func(event string, at time.Time, note string) {
		marks = append(marks, Mark{Event: event, Time: at, Note: note})
	}
	mark(EventFaultOn, scene.from, f.what)
	var first decide.Decision
	if f.want != "" {
		first = b.await(ctx, f, scene.since(), f.want)
		if first.ID == "" {
			r.Missing = append(r.Missing, fmt.Sprintf("no %s of %s within %s", f.want, f.group, b.cfg.Wait))
		}
		mark(EventWanted, first.Time, string(f.want)+" by "+first.By)
		mark(EventWantedApplied, first.Programmed, first.Version)
	}
	until(ctx, time.Now().Add(f.lasts))
	if err := mended(); err != nil {
		return r, err
	}
	mark(EventFaultOff, time.Now(), "")
	if over := f.over(); over != "" && first.ID != "" {
		last, ok := b.decisions.await(ctx, time.Now().Add(b.cfg.ReleaseWait), func(d decide.Decision) bool {
			return d.Action == over && whole(d) && d.Time.After(first.Time) && string(d.Group) == b.crowd(f.group).id
		})
		if !ok {
			r.Missing = append(r.Missing, fmt.Sprintf("no %s of %s within %s", over, f.group, b.cfg.ReleaseWait))
		}
		mark(EventOver, last.Time, string(over)+" by "+last.By)
	}
	b.settle(ctx, &r, f, &scene, first)
	r.Timeline = timeline(scene.from, marks)
	r.Took = time.Since(scene.from).Seconds()
	b.log.Info("fault is over", "fault", f.name, "wrong", r.Wrong, "missing", r.Missing)
	return r, ctx.Err()
}

// await is the first decision of a kind about the fault's group, once edges have it.
func (b *bench) await(ctx context.Context, f decisionFault, since time.Time, action decide.Action) decide.Decision {
	id := b.crowd(f.group).id
	d, ok := b.decisions.await(ctx, since.Add(b.cfg.Wait), func(d decide.Decision) bool {
		// Taking an update back is right whichever of its groups showed it.
		return d.Action == action && !d.Time.Before(since) && (string(d.Group) == id || action == decide.RollBack)
	})
	if !ok {
		return decide.Decision{}
	}
	b.log.Info("decision", "action", d.Action, "group", f.group, "reason", d.Reason)
	if applied, ok := b.decisions.programmed(ctx, d.ID, time.Now().Add(b.cfg.Wait)); ok {
		d = applied
	}
	return d
}

// settle judges what was decided in the time of a fault.
func (b *bench) settle(ctx context.Context, r *FaultReport, f decisionFault, s *scene, first decide.Decision) {
	if first.ID != "" { // its outcome is measured a short window later
		first, _ = b.decisions.await(ctx, time.Now().Add(5*time.Second), func(d decide.Decision) bool { return d.ID == first.ID && d.Outcome != nil })
		r.Reason, r.Outcome = first.Reason, first.Outcome
	}
	names, groups := map[string]string{}, map[string]bool{}
	for _, c := range b.crowds {
		names[c.id], groups[c.id] = c.Name, true
	}
	for _, d := range b.decisions.since(s.from, groups) {
		if !d.Action.Moves() {
			r.Held++
			continue
		}
		if d.By != decide.ByPolicy {
			continue
		}
		r.Done = append(r.Done, d)
		if why := f.judge(d, names[string(d.Group)], s); why != "" {
			r.Wrong = append(r.Wrong, why)
		}
	}
}

// judge says why a decision is wrong, or nothing.
func (f decisionFault) judge(d decide.Decision, name string, s *scene) string {
	what := fmt.Sprintf("%s of %s (%s)", d.Action, name, d.Reason)
	switch {
	case s.blind(d.Time):
		return what + " while there was no telemetry"
	case d.Action == decide.RollBack && f.want == decide.RollBack:
		return ""
	case name != f.group:
		return what + " is of a group that has no part in it"
	case d.Action != f.want && !slices.Contains(f.may, d.Action):
		return what + " is no remedy"
	}
	return ""
}

func decisionPromises(r DecisionsReport) []Promise {
	wrong, missing, decided := 0, 0, 0
	var ok []string
	for _, f := range r.Faults {
		wrong, missing, decided = wrong+len(f.Wrong), missing+len(f.Missing), decided+len(f.Done)
		if f.ok() {
			ok = append(ok, f.Name)
		}
	}
	all := make([]GroupReport, len(r.Groups))
	for i, g := range r.Groups {
		all[i] = GroupReport{Name: g.Name, Messages: g.Messages, Total: g.Total}
	}
	return []Promise{
		{"wrong", "no wrong action", fmt.Sprintf("%d wrong of %d actions in %d faults", wrong, decided, len(r.Faults)), wrong == 0 && len(r.Faults) > 0},
		{"right", "each fault is answered as it should be", fmt.Sprintf("%d of %d faults, %d answers missing", len(ok), len(r.Faults), missing), missing == 0 && len(r.Faults) > 0},
		messages(all),
		kept(all),
	}
}

func (r DecisionsReport) text(out io.Writer) error {
	w := table(out)
	for _, f := range r.Faults {
		verdict := "right"
		if !f.ok() {
			verdict = "WRONG"
		}
		fmt.Fprintf(w, "FAULT %s\t%s\tafter fault\tclock\t\n", f.Name, verdict)
		for _, m := range f.Timeline {
			clock, after := "-", "-"
			if !m.Time.IsZero() {
				clock, after = m.Time.Local().Format("15:04:05.000"), seconds(m.AfterFault)
			}
			fmt.Fprintf(w, "  %s\t\t%s\t%s\t%s\n", strings.ReplaceAll(m.Event, "_", " "), after, clock, m.Note)
		}
		f.details(w)
	}
	totalsTable(w, r.Groups)
	fmt.Fprintln(w)
	PromiseTable(w, r.Promises)
	return w.Flush()
}

func (r FaultReport) details(w *tabwriter.Writer) {
	fmt.Fprintf(w, "  wanted %s; %d actions, %d holds\n", r.Wanted, len(r.Done), r.Held)
	if r.Reason != "" {
		fmt.Fprintf(w, "  because %s\n", r.Reason)
	}
	if r.Outcome != nil {
		fmt.Fprintf(w, "  and then %s\n", r.Outcome.Words)
	}
	for _, why := range r.Wrong {
		fmt.Fprintf(w, "  WRONG: %s\n", why)
	}
	for _, what := range r.Missing {
		fmt.Fprintf(w, "  MISSING: %s\n", what)
	}
	fmt.Fprintln(w)
}

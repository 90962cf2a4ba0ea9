package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
)

// ChangesSchema names the form of [ChangesReport] in JSON.
const ChangesSchema = "tracegate.load.changes/1"

// ChangesReport is the outcome of [Changes].
type ChangesReport struct {
	Schema   string            `json:"schema"`
	OK       bool              `json:"ok"`
	Started  time.Time         `json:"started"`
	Ended    time.Time         `json:"ended"`
	Settings Settings          `json:"settings"`
	Asked    int               `json:"changes_asked"`
	Mode     string            `json:"policy_mode"`         // of the run's policy
	Reached  float64           `json:"requests_per_second"` // of all groups, answered
	Kinds    []ChangeKind      `json:"kinds"`
	Listener []ListenerCounter `json:"listener_manager"`
	Groups   []GroupTotals     `json:"groups"`
	Promises []Promise         `json:"promises"`
}

// ChangeKind is how one kind of change went: from the call to the acknowledgment of
// every edge.
type ChangeKind struct {
	Kind    string   `json:"kind"` // isolate, release, certificate, or what changes in the policy
	Asked   int      `json:"asked"`
	Applied int      `json:"applied"`
	P50     float64  `json:"p50_ms"`
	P99     float64  `json:"p99_ms"`
	Max     float64  `json:"max_ms"`
	Errors  []string `json:"errors,omitempty"` // the first few
}

// ListenerCounter is one of Envoy's listener_manager counters.
type ListenerCounter struct {
	Name   string `json:"name"`
	Before int64  `json:"before"`
	After  int64  `json:"after"`
}

// applyTime bounds the wait for the acknowledgment of one change.
const applyTime = 10 * time.Second

// changesUnderWay bounds the requests of a group that wait for an answer. Where the machine
// cannot keep the rate it is then pressed as hard as it can be, and not buried: the report
// says what rate was reached.
const changesUnderWay = 128

// Changes makes n mixed changes while crowds press, each when the one before has been
// acknowledged: groups nobody belongs to are isolated and released; cohorts, rules,
// canaries, limits of a pool and services come and go in the policy; and where
// Config.Renew is set, a certificate is renewed. policy is the document in force, and is
// put back at the end.
//
// For the time of the run the policy only observes: on a machine that is full requests are
// late whatever is changed, and an update that is taken back for that is not what is asked
// here. ([Decisions] asks for that.)
//
// A change is begun at most each Config.Every. Config.Duration does not bound the run: a
// second, or Config.Every, for each change does.
func Changes(ctx context.Context, cfg Config, n int, policy []byte, out io.Writer, log *slog.Logger) (ChangesReport, error) {
	if n < 1 {
		return ChangesReport{}, errors.New("load changes: n: must be at least 1")
	}
	cfg.Duration = time.Duration(n) * max(time.Second, cfg.Every)
	if err := cfg.Validate(); err != nil {
		return ChangesReport{}, fmt.Errorf("load changes: %w", err)
	}
	observed, err := observing(policy)
	if err != nil {
		return ChangesReport{}, fmt.Errorf("load changes: policy: %w", err)
	}
	for kind := range edits() {
		if _, err := edited(observed, kind, 0); err != nil {
			return ChangesReport{}, fmt.Errorf("load changes: policy: %w", err)
		}
	}
	cfg.MaxInFlight, cfg.Reading = min(cfg.MaxInFlight, changesUnderWay), true
	r := ChangesReport{Schema: ChangesSchema, Asked: n, Mode: string(decide.ModeObserve), Settings: settings(cfg)}
	c := newChanger(n, observed, cfg.Renew != nil)
	var before, after map[string]int64
	l, err := run(ctx, cfg, log, func(ctx context.Context, l *lab) (err error) {
		c.lab = l
		if before, err = l.admin.listenerCounters(ctx, cfg.EdgeAdmin); err != nil {
			return err
		}
		if err := l.within(ctx, observed, policy, "a run of load changes", func() error { return c.change(ctx) }); err != nil {
			return err
		}
		after, err = l.admin.listenerCounters(ctx, cfg.EdgeAdmin)
		return err
	})
	if err != nil {
		return ChangesReport{}, fmt.Errorf("load changes: %w", err)
	}
	r.Started, r.Ended = l.start, l.end
	r.Kinds = c.report()
	r.Listener = compare(before, after)
	for _, crowd := range l.crowds {
		r.Groups = append(r.Groups, crowd.totals(l.start))
	}
	r.Reached = reached(r)
	r.Promises = changesPromises(r)
	r.OK = allHeld(r.Promises)
	if err := write(out, cfg.Format, r, r.text); err != nil {
		return r, fmt.Errorf("write report: %w", err)
	}
	return r, nil
}

// changer makes the changes, one after the other.
type changer struct {
	*lab
	n       int
	policy  []byte
	version string   // of the plan that the last change made; empty: not known
	kinds   []string // in the order of their turns
	took    map[string][]time.Duration
	asked   map[string]int
	errs    map[string][]string
}

func newChanger(n int, policy []byte, renews bool) *changer {
	c := &changer{
		n: n, policy: policy, took: map[string][]time.Duration{}, asked: map[string]int{}, errs: map[string][]string{},
		kinds: []string{"isolate", "cohort", "rule", "weight", "release", "pool", "service"},
	}
	if renews {
		c.kinds = append(c.kinds, "certificate")
	}
	return c
}

func (c *changer) change(ctx context.Context) error {
	limit, next := c.start.Add(c.cfg.Duration), time.Now()
	for i := 0; i < c.n && time.Now().Before(limit) && until(ctx, next); i++ {
		next = time.Now().Add(c.cfg.Every)
		kind := c.kinds[i%len(c.kinds)]
		c.asked[kind]++
		took, err := c.apply(ctx, kind, i/len(c.kinds))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			c.took[kind] = append(c.took[kind], took)
		case len(c.errs[kind]) < maxExamples:
			c.errs[kind] = append(c.errs[kind], err.Error())
		}
		if (i+1)%100 == 0 {
			c.log.Info("changes made", "n", i+1, "of", c.n)
		}
	}
	return ctx.Err()
}

// apply makes one change and says how long every edge took to acknowledge it.
func (c *changer) apply(ctx context.Context, kind string, turn int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	nobody := group.Group{Color: group.ColorOf("lab"), Env: "lab", Tenant: fmt.Sprintf("nobody-%d", turn)}
	var d decide.Decision
	start, err := time.Now(), error(nil)
	switch kind {
	case "isolate":
		d, err = c.control.Isolate(ctx, nobody.ID(), order("load run", aWhile, &nobody))
	case "release":
		d, err = c.control.Release(ctx, nobody.ID(), order("load run", momentarily, &nobody))
	case "certificate":
		return c.acknowledged(ctx, func() error { return c.cfg.Renew(turn) })
	default:
		document, err := edited(c.policy, kind, turn)
		if err != nil {
			return 0, err
		}
		return c.acknowledged(ctx, func() error { return c.control.PutPolicy(ctx, document, "load", "a change under load") })
	}
	if err != nil {
		return 0, err
	}
	applied, ok := c.decisions.programmed(ctx, d.ID, time.Now().Add(applyTime))
	if !ok {
		return 0, fmt.Errorf("decision %s is not acknowledged within %v", d.ID, applyTime)
	}
	c.version = applied.Version
	return time.Since(start), nil
}

// statusLag bounds how far the status may be behind the decision before. Another version
// after it is the product's own doing: it has moved a group of the lab.
const statusLag = time.Second

// acknowledged makes a change that has no decision, and waits until every edge has its
// version: the status is asked, which may be a moment behind the decision before.
func (c *changer) acknowledged(ctx context.Context, change func() error) (time.Duration, error) {
	before := time.Now()
	old, err := c.status(ctx, func(st ctlapi.Status) bool {
		return c.version == "" || st.Version == c.version || time.Since(before) > statusLag
	})
	if err != nil {
		return 0, fmt.Errorf("wait for version %s: %w", c.version, err)
	}
	start := time.Now()
	if err := change(); err != nil {
		return 0, err
	}
	now, err := c.status(ctx, func(st ctlapi.Status) bool {
		return st.Version != old.Version || st.Rejected != nil && old.Rejected == nil
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("is not acknowledged: %w", err)
	case now.Version == old.Version:
		return 0, fmt.Errorf("edge %s rejects %s: %s", now.Rejected.Edge, now.Rejected.Nack.Resource, now.Rejected.Nack.Reason)
	}
	c.version = now.Version
	return time.Since(start), nil
}

// status waits for a status in which every edge has what it should, and that fits.
func (c *changer) status(ctx context.Context, fits func(ctlapi.Status) bool) (ctlapi.Status, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := c.control.Status(ctx)
		if err != nil {
			return st, err
		}
		if st.Programming == nil && st.LastGood == st.Version && fits(st) {
			return st, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
}

func (c *changer) report() []ChangeKind {
	var out []ChangeKind
	for _, kind := range c.kinds {
		took := slices.Sorted(slices.Values(c.took[kind]))
		out = append(out, ChangeKind{
			Kind: kind, Asked: c.asked[kind], Applied: len(took), Errors: c.errs[kind],
			P50: ms(percentile(took, 50)), P99: ms(percentile(took, 99)), Max: ms(percentile(took, 100)),
		})
	}
	return out
}

// reached is how many requests a second were answered.
func reached(r ChangesReport) float64 {
	answered := 0
	for _, g := range r.Groups {
		answered += g.Total.Requests - g.Total.Shed - g.Total.Failed
	}
	return float64(answered) / r.Ended.Sub(r.Started).Seconds()
}

func compare(before, after map[string]int64) []ListenerCounter {
	names := map[string]bool{}
	for name := range before {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	var out []ListenerCounter
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out = append(out, ListenerCounter{Name: name, Before: before[name], After: after[name]})
	}
	return out
}

// changesPromises is pure.
func changesPromises(r ChangesReport) []Promise {
	applied := 0
	for _, k := range r.Kinds {
		applied += k.Applied
	}
	dropped, open, n5xx, transport, failed, requests := 0, 0, 0, 0, 0, 0
	for _, g := range r.Groups {
		dropped += g.Sockets.Dropped
		open += g.Sockets.Open
		n5xx += g.Total.Errors5xx
		transport += g.Total.ErrorsTransport
		failed += g.Total.Failed
		requests += g.Total.Requests - g.Total.Shed
	}
	touched := ""
	for _, c := range r.Listener {
		if c.After != c.Before {
			touched = join(touched, fmt.Sprintf("%s %d -> %d", c.Name, c.Before, c.After))
		}
	}
	listener := Promise{Key: "listener", Claim: "no change touches a listener of Envoy", Measured: touched, Held: touched == "" && len(r.Listener) > 0}
	if listener.Held {
		listener.Measured = fmt.Sprintf("%d counters unchanged", len(r.Listener))
	}
	return []Promise{
		{
			Key: "applied", Claim: "every change is acknowledged by the edge",
			Measured: fmt.Sprintf("%d of %d", applied, r.Asked), Held: applied == r.Asked,
		},
		{
			Key: "sockets", Claim: "no WebSocket is dropped",
			Measured: fmt.Sprintf("%d dropped, %d open", dropped, open), Held: dropped == 0 && open > 0,
		},
		{
			Key: "errors", Claim: "no request sees an error",
			Measured: fmt.Sprintf("%d 5xx, %d transport errors and %d given up in %d requests", n5xx, transport, failed, requests),
			Held:     n5xx+transport+failed == 0 && requests > 0,
		},
		listener,
		totalMessages(r.Groups),
	}
}

func (r ChangesReport) text(out io.Writer) error {
	w := table(out)
	fmt.Fprintf(w, "%d changes in %s; %.0f requests a second reached of %.0f asked; for the run the policy is in mode %s\n\n",
		r.Asked, r.Ended.Sub(r.Started).Round(time.Second), r.Reached, r.Settings.Rate*float64(len(r.Groups)), r.Mode)
	fmt.Fprintf(w, "CHANGE\tasked\tapplied\tP50 ms\tP99 ms\tmax ms\t\n")
	for _, k := range r.Kinds {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%.1f\t%.1f\t\n", k.Kind, k.Asked, k.Applied, k.P50, k.P99, k.Max)
		for _, e := range k.Errors {
			fmt.Fprintf(w, "  %s\n", e)
		}
	}
	fmt.Fprintf(w, "\nENVOY listener_manager\tbefore\tafter\t\n")
	for _, c := range r.Listener {
		fmt.Fprintf(w, "%s\t%d\t%d\t\n", c.Name, c.Before, c.After)
	}
	fmt.Fprintln(w)
	totalsTable(w, r.Groups)
	fmt.Fprintln(w)
	PromiseTable(w, r.Promises)
	return w.Flush()
}

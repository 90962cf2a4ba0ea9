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

	"go.yaml.in/yaml/v3"

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
	Kinds    []ChangeKind      `json:"kinds"`
	Listener []ListenerCounter `json:"listener_manager"`
	Groups   []GroupTotals     `json:"groups"`
	Promises []Promise         `json:"promises"`
}

// ChangeKind is how one kind of change went: from the call to the acknowledgment of
// every edge.
type ChangeKind struct {
	Kind    string   `json:"kind"` // isolate, release, policy
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

// Changes makes n changes through the control API while crowds press: it isolates a
// group nobody belongs to, adds a cohort nobody matches to the policy, releases the
// group, and so on, each when the one before has been acknowledged. policy is the
// document in force, and is put back at the end.
//
// Config.Duration does not bound it: a second for each change does.
func Changes(ctx context.Context, cfg Config, n int, policy []byte, out io.Writer, log *slog.Logger) (ChangesReport, error) {
	if n < 1 {
		return ChangesReport{}, errors.New("load changes: n: must be at least 1")
	}
	cfg.Duration = max(time.Duration(n)*time.Second, time.Second)
	if err := cfg.Validate(); err != nil {
		return ChangesReport{}, fmt.Errorf("load changes: %w", err)
	}
	if _, err := withCohort(policy, "lab"); err != nil {
		return ChangesReport{}, fmt.Errorf("load changes: policy: %w", err)
	}
	r := ChangesReport{Schema: ChangesSchema, Asked: n, Settings: settings(cfg)}
	c := changer{n: n, policy: policy}
	var before, after map[string]int64
	l, err := run(ctx, cfg, log, func(ctx context.Context, l *lab) (err error) {
		c.lab = l
		if before, err = l.admin.listenerCounters(ctx, cfg.EdgeAdmin); err != nil {
			return err
		}
		if err := c.change(ctx); err != nil {
			return err
		}
		after, err = l.admin.listenerCounters(ctx, cfg.EdgeAdmin)
		return err
	})
	if err != nil {
		return ChangesReport{}, fmt.Errorf("load changes: %w", err)
	}
	r.Started, r.Ended = l.start, l.end
	r.Kinds = c.kinds()
	r.Listener = compare(before, after)
	for _, crowd := range l.crowds {
		r.Groups = append(r.Groups, crowd.totals(l.start))
	}
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
	version string // of the plan that the last change made; empty: not known
	took    [3][]time.Duration
	asked   [3]int
	errs    [3][]string
}

// kindNames are in the order of their turns.
func kindNames() [3]string { return [3]string{"isolate", "policy", "release"} }

func (c *changer) change(ctx context.Context) (err error) {
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTime)
		defer cancel()
		if rerr := c.control.PutPolicy(clean, c.policy, "load", "as it was"); rerr != nil {
			err = errors.Join(err, fmt.Errorf("put the policy back: %w", rerr))
		}
	}()
	limit := c.start.Add(c.cfg.Duration)
	for i := 0; i < c.n && time.Now().Before(limit); i++ {
		kind := i % 3
		c.asked[kind]++
		took, err := c.apply(ctx, kind, i/3)
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
func (c *changer) apply(ctx context.Context, kind, turn int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	nobody := group.Group{Color: group.ColorOf("lab"), Env: "lab", Tenant: fmt.Sprintf("nobody-%d", turn)}
	var d decide.Decision
	start, err := time.Now(), error(nil)
	switch kindNames()[kind] {
	case "policy":
		return c.applyPolicy(ctx, turn)
	case "isolate":
		d, err = c.control.Isolate(ctx, nobody.ID(), order("load run", aWhile, &nobody))
	default:
		d, err = c.control.Release(ctx, nobody.ID(), order("load run", momentarily, &nobody))
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

// applyPolicy puts a policy with a cohort of its own, and waits until its version is
// the one every edge has. Policies have no decision, so the status is asked; it may
// be a moment behind the decision before.
func (c *changer) applyPolicy(ctx context.Context, turn int) (time.Duration, error) {
	document, err := withCohort(c.policy, fmt.Sprintf("lab-%d", turn))
	if err != nil {
		return 0, err
	}
	old, err := c.status(ctx, func(st ctlapi.Status) bool { return c.version == "" || st.Version == c.version })
	if err != nil {
		return 0, fmt.Errorf("wait for version %s: %w", c.version, err)
	}
	start := time.Now()
	if err := c.control.PutPolicy(ctx, document, "load", "a change under load"); err != nil {
		return 0, err
	}
	now, err := c.status(ctx, func(st ctlapi.Status) bool {
		return st.Version != old.Version || st.Rejected != nil && old.Rejected == nil
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("policy is not acknowledged: %w", err)
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

func (c *changer) kinds() []ChangeKind {
	var out []ChangeKind
	for i, name := range kindNames() {
		took := slices.Sorted(slices.Values(c.took[i]))
		out = append(out, ChangeKind{
			Kind: name, Asked: c.asked[i], Applied: len(took), Errors: c.errs[i],
			P50: ms(percentile(took, 50)), P99: ms(percentile(took, 99)), Max: ms(percentile(took, 100)),
		})
	}
	return out
}

// withCohort adds a cohort that no request matches to a policy document. Comments and
// order stay as they are.
func withCohort(policy []byte, name string) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(policy, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return nil, errors.New("is empty")
	}
	cohorts := child(child(doc.Content[0], "color"), "cohorts")
	if cohorts == nil || cohorts.Kind != yaml.SequenceNode {
		return nil, errors.New("has no list color.cohorts")
	}
	var cohort yaml.Node
	if err := cohort.Encode(map[string]any{
		"name":  name,
		"match": map[string]any{"header": map[string]any{"name": "x-lab", "exact": name}},
	}); err != nil {
		return nil, err
	}
	cohorts.Content = append(cohorts.Content, &cohort)
	return yaml.Marshal(&doc)
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
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
	dropped, open, n5xx, transport, requests := 0, 0, 0, 0, 0
	for _, g := range r.Groups {
		dropped += g.Sockets.Dropped
		open += g.Sockets.Open
		n5xx += g.Total.Errors5xx
		transport += g.Total.ErrorsTransport
		requests += g.Total.Requests
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
			Measured: fmt.Sprintf("%d 5xx and %d transport errors in %d requests", n5xx, transport, requests),
			Held:     n5xx+transport == 0 && requests > 0,
		},
		listener,
		totalMessages(r.Groups),
	}
}

func (r ChangesReport) text(out io.Writer) error {
	w := table(out)
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
	promiseTable(w, r.Promises)
	return w.Flush()
}

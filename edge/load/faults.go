package load

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/edge/client"
)

// FaultsSchema names the form of [FaultsReport] in JSON.
const FaultsSchema = "tracegate.load.faults/1"

// Part is a process that may be killed, as the caller knows how.
type Part struct {
	Name string
	// Kill ends the process at once, as SIGKILL does.
	Kill func(ctx context.Context) error
	// Healed says whether another process has taken its place and is ready.
	Healed func(ctx context.Context) (bool, error)
	// Harmless parts serve no request: killing them must not be noticed by clients.
	Harmless bool
	// Kept says where the telemetry is that was received; nil: the part stores none. While
	// such a part is away nothing may be decided, and nothing that was received be lost.
	Kept func(ctx context.Context) (Kept, error)
}

// Kept is the account of the telemetry receiver, in records.
type Kept struct {
	Received uint64 `json:"received"`
	Stored   uint64 `json:"stored"`
	Spooled  uint64 `json:"spooled"` // on disk now
	Dropped  uint64 `json:"dropped"`
	Balanced bool   `json:"balanced"` // none is unaccounted for
}

// FaultsReport is the outcome of [Faults].
type FaultsReport struct {
	Schema   string        `json:"schema"`
	OK       bool          `json:"ok"`
	Started  time.Time     `json:"started"`
	Ended    time.Time     `json:"ended"`
	Settings Settings      `json:"settings"`
	Kills    []Kill        `json:"kills"`
	Groups   []GroupTotals `json:"groups"`
	Promises []Promise     `json:"promises"`
}

// Kill is the death of one part, and what was seen from then until some seconds after
// it had healed.
type Kill struct {
	Part     string    `json:"part"`
	Harmless bool      `json:"harmless"`
	Time     time.Time `json:"time"`
	Healed   bool      `json:"healed"`
	HealedMS float64   `json:"healed_ms"` // from the kill; the bound where Healed is false
	// ControlAwayMS and StaleMS say how long the control API did not answer, and how
	// long it said that its telemetry was too old to decide on.
	ControlAwayMS float64     `json:"control_away_ms"`
	StaleMS       float64     `json:"telemetry_stale_ms"`
	Groups        []KillGroup `json:"groups"`
	// Kept is the account after the part had healed and the disk was drained, MostSpooled
	// what was on it at most, and Moved how many groups policy moved while it was away; of
	// a part that stores telemetry.
	Kept        *Kept  `json:"kept,omitempty"`
	MostSpooled uint64 `json:"most_spooled,omitempty"`
	Moved       int    `json:"moved,omitempty"`
}

// KillGroup is what one group saw of a kill.
type KillGroup struct {
	Name    string  `json:"name"`
	Figures Figures `json:"figures"`
	// SilenceMS is the longest time without any answer that was not an error.
	SilenceMS float64 `json:"silence_ms"`
	// Pools counts answers without a fault by the pool that gave them.
	Pools map[string]int `json:"pools"`
	// Dropped sockets, and how long after the kill the last of them was open again.
	Dropped       int     `json:"sockets_dropped"`
	ReconnectedMS float64 `json:"reconnected_ms"`
	Reconnected   bool    `json:"reconnected"` // all of them
}

// GroupTotals is what a group saw in a run without phases.
type GroupTotals struct {
	Name     string   `json:"name"`
	ID       string   `json:"id"`
	Total    Figures  `json:"total"`
	Sockets  Sockets  `json:"sockets"`
	Messages Messages `json:"messages"`
}

// Faults kills the parts in turn while crowds press, and reports what degraded, what
// healed and what was lost. Config.Duration does not bound it: Config.Calm and
// Limits.Heal do, for each part.
func Faults(ctx context.Context, cfg Config, parts []Part, out io.Writer, log *slog.Logger) (FaultsReport, error) {
	cfg.Duration = cfg.Calm + time.Duration(len(parts))*(cfg.Calm+cfg.Limits.Heal)
	if err := cfg.Validate(); err != nil {
		return FaultsReport{}, fmt.Errorf("load faults: %w", err)
	}
	r := FaultsReport{Schema: FaultsSchema, Settings: settings(cfg)}
	l, err := run(ctx, cfg, log, func(ctx context.Context, l *lab) error {
		if !until(ctx, l.start.Add(cfg.Calm)) {
			return ctx.Err()
		}
		for _, p := range parts {
			k, err := l.kill(ctx, p)
			if err != nil {
				return fmt.Errorf("kill %s: %w", p.Name, err)
			}
			r.Kills = append(r.Kills, k)
		}
		return nil
	})
	if err != nil {
		return FaultsReport{}, fmt.Errorf("load faults: %w", err)
	}
	r.Started, r.Ended = l.start, l.end
	for _, c := range l.crowds {
		r.Groups = append(r.Groups, c.totals(l.start))
	}
	r.Promises = faultsPromises(r.Kills, r.Groups, cfg.Limits)
	r.OK = allHeld(r.Promises)
	if err := write(out, cfg.Format, r, r.text); err != nil {
		return r, fmt.Errorf("write report: %w", err)
	}
	return r, nil
}

func settings(cfg Config) Settings {
	return Settings{DurationMS: ms(cfg.Duration), Rate: cfg.Rate, Users: cfg.Users}
}

func (c *crowd) totals(since time.Time) GroupTotals {
	samples, tries := c.record.snapshot()
	return GroupTotals{
		Name: c.Name, ID: c.id,
		Total:    summarize(samples, tries, since, since.Add(1000*time.Hour)),
		Sockets:  tally(c.sockets.snapshot()),
		Messages: c.ledger.Verdict(),
	}
}

// kill ends one part, waits for it to heal and a little more, and says what was seen.
func (l *lab) kill(ctx context.Context, p Part) (Kill, error) {
	k := Kill{Part: p.Name, Harmless: p.Harmless}
	var g errgroup.Group
	watch, stop := context.WithCancel(ctx)
	defer stop()
	var health health
	g.Go(func() error { return health.watch(watch, l.control) })

	k.Time = time.Now()
	if err := p.Kill(ctx); err != nil {
		return k, err
	}
	l.log.Info("killed", "part", p.Name)
	var asked error
	k.Healed = poll(ctx, k.Time.Add(l.cfg.Limits.Heal), func() bool {
		k.spooled(ctx, p)
		ok, err := p.Healed(ctx)
		asked = err
		return ok && err == nil
	})
	healed := time.Now()
	k.HealedMS = ms(healed.Sub(k.Time))
	if asked != nil && ctx.Err() == nil {
		l.log.Warn("ask whether the part has healed", "part", p.Name, "error", asked)
	}
	if p.Kept != nil {
		k.Moved = moved(l.decisions.since(k.Time, l.groups()), healed)
		poll(ctx, healed.Add(l.cfg.Wait), func() bool { return k.spooled(ctx, p) })
	}
	poll(ctx, healed.Add(l.cfg.Wait), l.connected)
	l.log.Info("healed", "part", p.Name, "healed", k.Healed, "after", healed.Sub(k.Time))
	until(ctx, time.Now().Add(l.cfg.Calm))
	poll(ctx, time.Now().Add(l.cfg.Wait), l.connected) // also of those that broke late
	end := time.Now()
	stop()
	_ = g.Wait() // it ends with its context and returns nothing else
	if ctx.Err() != nil {
		return k, ctx.Err()
	}
	k.ControlAwayMS, k.StaleMS = health.result()
	for _, c := range l.crowds {
		samples, tries := c.record.snapshot()
		k.Groups = append(k.Groups, killGroup(c.Group, samples, tries, c.sockets.snapshot(), k.Time, end))
	}
	return k, nil
}

// spooled notes the account, and says whether nothing is on disk.
func (k *Kill) spooled(ctx context.Context, p Part) bool {
	if p.Kept == nil {
		return true
	}
	kept, err := p.Kept(ctx)
	if err != nil {
		return false
	}
	k.Kept, k.MostSpooled = &kept, max(k.MostSpooled, kept.Spooled)
	return kept.Spooled == 0
}

// groups are the ids of the crowds.
func (l *lab) groups() map[string]bool {
	out := map[string]bool{}
	for _, c := range l.crowds {
		out[c.id] = true
	}
	return out
}

// moved counts the moves that policy decided before a moment.
func moved(decisions []decide.Decision, before time.Time) int {
	n := 0
	for _, d := range decisions {
		if d.Time.Before(before) && d.By == decide.ByPolicy && d.Action != decide.Hold {
			n++
		}
	}
	return n
}

// killGroup is what a group saw in [from, to).
func killGroup(g Group, samples []sample, tries []try, events []socketEvent, from, to time.Time) KillGroup {
	k := KillGroup{
		Name: g.Name, Figures: summarize(samples, tries, from, to),
		SilenceMS: ms(longestSilence(tries, from, to)), Reconnected: true, Pools: map[string]int{},
	}
	for _, t := range tries {
		if t.pool != "" && t.fault == faultNone && !t.end.Before(from) && t.end.Before(to) {
			k.Pools[t.pool]++
		}
	}
	away := map[string]bool{}
	for _, e := range events {
		if e.time.Before(from) || e.time.After(to) {
			continue
		}
		switch e.kind {
		case client.Lost:
			k.Dropped++
			away[e.who] = true
		case client.Opened:
			if away[e.who] {
				delete(away, e.who)
				k.ReconnectedMS = ms(e.time.Sub(from))
			}
		}
	}
	k.Reconnected = len(away) == 0
	return k
}

// health watches the control API. It is safe for concurrent use.
type health struct {
	mu          sync.Mutex
	away, stale time.Duration
}

// watch asks ten times a second until ctx is done; each answer stands for the time
// since the one before.
func (h *health) watch(ctx context.Context, c *ctlapi.Client) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(ctx, time.Second)
		st, err := c.Status(ask)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		h.mu.Lock()
		if err != nil {
			h.away += now.Sub(last)
		} else if st.TelemetryStale {
			h.stale += now.Sub(last)
		}
		h.mu.Unlock()
		last = now
	}
}

func (h *health) result() (awayMS, staleMS float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return ms(h.away), ms(h.stale)
}

// faultsPromises is pure.
func faultsPromises(kills []Kill, groups []GroupTotals, l Limits) []Promise {
	out := []Promise{totalMessages(groups)}
	healed := Promise{Key: "healed", Claim: fmt.Sprintf("every killed part is ready again within %v", l.Heal), Held: len(kills) > 0}
	sockets := Promise{Key: "sockets", Claim: "every dropped socket is open again", Held: true, Measured: "0 dropped"}
	dropped, worst := 0, 0.0
	for _, k := range kills {
		healed.Held = healed.Held && k.Healed
		healed.Measured = join(healed.Measured, fmt.Sprintf("%s %.1f s", k.Part, k.HealedMS/1000))
		if k.Harmless {
			out = append(out, unnoticed(k))
		}
		if k.Kept != nil {
			out = append(out, telemetryKept(k), nothingMoved(k))
		}
		for _, g := range k.Groups {
			dropped += g.Dropped
			worst = max(worst, g.ReconnectedMS)
			sockets.Held = sockets.Held && g.Reconnected
		}
	}
	if dropped > 0 {
		sockets.Measured = fmt.Sprintf("%d dropped, the last back %.1f s after its kill", dropped, worst/1000)
	}
	givenUp := Promise{Key: "given_up", Claim: "no request is given up: repeating it is enough"}
	failed, requests := 0, 0
	for _, g := range groups {
		failed += g.Total.Failed
		requests += g.Total.Requests
	}
	givenUp.Measured, givenUp.Held = fmt.Sprintf("%d of %d", failed, requests), failed == 0 && requests > 0
	return append(out, healed, sockets, givenUp)
}

// unnoticed is the promise about a part that serves no request.
func unnoticed(k Kill) Promise {
	n, dropped, requests := 0, 0, 0
	for _, g := range k.Groups {
		n += g.Figures.Errors()
		dropped += g.Dropped
		requests += g.Figures.Requests
	}
	return Promise{
		Key:      "unnoticed_" + k.Part,
		Claim:    "clients do not notice the death of " + k.Part,
		Measured: fmt.Sprintf("%d errors in %d requests, %d sockets dropped", n, requests, dropped),
		Held:     n+dropped == 0 && requests > 0,
	}
}

// telemetryKept is the promise about a part that stores telemetry.
func telemetryKept(k Kill) Promise {
	return Promise{
		Key:      "kept_" + k.Part,
		Claim:    "telemetry that comes while " + k.Part + " is away is kept, and stored afterwards",
		Measured: fmt.Sprintf("%d received, %d dropped, %d on disk at most, %d at the end", k.Kept.Received, k.Kept.Dropped, k.MostSpooled, k.Kept.Spooled),
		Held:     k.Kept.Balanced && k.Kept.Dropped == 0 && k.Kept.Spooled == 0,
	}
}

// nothingMoved is the promise that nothing is decided without it.
func nothingMoved(k Kill) Promise {
	return Promise{
		Key:      "still_" + k.Part,
		Claim:    "no group is moved by policy while " + k.Part + " is away",
		Measured: fmt.Sprintf("%d moved in %.1f s, telemetry said to be stale for %.1f s", k.Moved, k.HealedMS/1000, k.StaleMS/1000),
		Held:     k.Moved == 0,
	}
}

func totalMessages(groups []GroupTotals) Promise {
	all := make([]GroupReport, len(groups))
	for i, g := range groups {
		all[i].Messages = g.Messages
	}
	return messages(all)
}

// pools lists counts by pool, in the order of names.
func pools(n map[string]int) string {
	out := ""
	for _, name := range slices.Sorted(maps.Keys(n)) {
		out = join(out, fmt.Sprintf("%s %d", name, n[name]))
	}
	return out
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

func (r FaultsReport) text(out io.Writer) error {
	w := table(out)
	fmt.Fprintf(w, "KILLED\thealed\tcontrol away\ttelemetry stale\t\n")
	for _, k := range r.Kills {
		healed := fmt.Sprintf("after %.1f s", k.HealedMS/1000)
		if !k.Healed {
			healed = "NOT in " + healed[len("after "):]
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f s\t%.1f s\t\n", k.Part, healed, k.ControlAwayMS/1000, k.StaleMS/1000)
	}
	fmt.Fprintf(w, "\nKILLED\tgroup\trequests\tgiven up\t5xx\ttransport\tP95 ms\tmax ms\tsilence ms\tserved by\tsockets dropped\tback after\t\n")
	for _, k := range r.Kills {
		name := k.Part
		for _, g := range k.Groups {
			f, back := g.Figures, "-"
			if g.Dropped > 0 {
				back = fmt.Sprintf("%.1f s", g.ReconnectedMS/1000)
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%.1f\t%.1f\t%.0f\t%s\t%d\t%s\t\n", name, g.Name,
				f.Requests, f.Failed, f.Errors5xx, f.ErrorsTransport, f.P95, f.Max, g.SilenceMS, pools(g.Pools), g.Dropped, back)
			name = ""
		}
	}
	fmt.Fprintln(w)
	totalsTable(w, r.Groups)
	fmt.Fprintln(w)
	PromiseTable(w, r.Promises)
	return w.Flush()
}

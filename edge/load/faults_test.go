package load

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/edge/client/coretest"
)

// down is a part that is away after it was killed until over says so.
func down(name string, harmless bool, over func() bool, kill, heal func()) Part {
	return Part{
		Name: name, Harmless: harmless,
		Kill: func(context.Context) error {
			kill()
			return nil
		},
		Healed: func(context.Context) (bool, error) {
			if !over() {
				return false, nil
			}
			heal()
			return true, nil
		},
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		parts  func(*product) []Part
		broken []string
	}{
		{"all heal", func(p *product) []Part {
			closed := time.Now() // and refused since
			return []Part{
				down("controlplane", true, func() bool { return p.refused.Load() >= 3 }, func() { p.away.Store(true) }, func() { p.away.Store(false) }),
				down("core", false, func() bool { return time.Since(closed) > 300*time.Millisecond }, func() {
					closed = time.Now()
					p.core.Misbehave(coretest.Chaos{Open: func(int) int { return http.StatusServiceUnavailable }})
					p.core.CloseSockets(0)
				}, func() { p.core.Misbehave(coretest.Chaos{}) }),
			}
		}, nil},
		{"a part stays away", func(p *product) []Part {
			return []Part{down("clickhouse", true, func() bool { return false }, func() {}, func() {})}
		}, []string{"healed"}},
		{"a part was not so harmless", func(p *product) []Part {
			return []Part{down("clickhouse", true, func() bool { return true }, func() { p.core.CloseSockets(protocol.CloseShutdown) }, func() {})}
		}, []string{"unnoticed_clickhouse"}},
		{"telemetry is lost", func(*product) []Part {
			clickhouse := down("clickhouse", true, func() bool { return true }, func() {}, func() {})
			spooled := uint64(3)
			clickhouse.Kept = func(context.Context) (Kept, error) {
				spooled = max(spooled, 1) - 1
				return Kept{Received: 9, Stored: 7 - spooled, Spooled: spooled, Dropped: 2, Balanced: true}, nil
			}
			return []Part{clickhouse}
		}, []string{"kept_clickhouse"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProduct(t)
			cfg := p.config()
			cfg.Calm = 300 * time.Millisecond
			if slices.Contains(tt.broken, "healed") {
				cfg.Limits.Heal = time.Second // nothing to wait for
			}
			var out bytes.Buffer
			r, err := Faults(deadline(t), cfg, tt.parts(p), &out, quiet())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.broken, brokenKeys(r.Promises)); diff != "" || r.OK != (tt.broken == nil) {
				t.Errorf("broken promises (-want +got):\n%s\n%s", diff, out.String())
			}
			if tt.broken == nil {
				if k := r.Kills[0]; k.ControlAwayMS <= 0 {
					t.Errorf("control was away for %v ms, and refused calls", k.ControlAwayMS)
				}
				if k := r.Kills[1]; k.HealedMS < 300 || k.Groups[0].Dropped != cfg.Users || !k.Groups[0].Reconnected {
					t.Errorf("kill of core = %+v", k)
				}
			}
			if testing.Verbose() {
				t.Log("\n" + out.String())
			}
		})
	}
}

func TestMoved(t *testing.T) {
	ds := []decide.Decision{
		{Action: decide.Isolate, By: decide.ByPolicy, Time: at(1)}, {Action: decide.Hold, By: decide.ByPolicy, Time: at(1)},
		{Action: decide.Release, By: "operator:x", Time: at(1)}, {Action: decide.Release, By: decide.ByPolicy, Time: at(3)},
	}
	if n := moved(ds, at(2)); n != 1 {
		t.Errorf("moved = %d, want 1", n)
	}
}

func TestKillGroup(t *testing.T) {
	tries := []try{
		{start: at(0), end: at(1), pool: "canary"},
		{start: at(1), end: at(4), pool: "baseline"},
		{start: at(4), end: at(5), pool: "baseline", fault: fault5xx},
		{start: at(4), end: at(6), pool: ""},
	}
	events := []socketEvent{
		{who: "a", kind: client.Opened, time: at(-1)},
		{who: "a", kind: client.Lost, time: at(1)},
		{who: "b", kind: client.Lost, time: at(1)},
		{who: "a", kind: client.Opened, time: at(3)},
	}
	got := killGroup(Group{Name: "g", Pool: "canary"}, nil, tries, events, at(0), at(10))
	want := KillGroup{
		Name: "g", Figures: Figures{Attempts: 4, Errors5xx: 1},
		SilenceMS: 4000, Pools: map[string]int{"canary": 1, "baseline": 1}, Dropped: 2, ReconnectedMS: 3000, Reconnected: false,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

package chat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/edge/load"
)

// TestStrikesAreHealed: as often as they are made, also the last ones, and never two of one
// target at a time; the same seed makes the same.
func TestStrikesAreHealed(t *testing.T) {
	strike := func(seed uint64) (names []string) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			broken := map[string]bool{}
			var w World
			for _, target := range []string{"a", "b", "c"} {
				for _, name := range []string{"kill ", "cut "} {
					w.Faults = append(w.Faults, Fault{Name: name + target, Target: target, Strike: func(context.Context) (func(context.Context) error, error) {
						set := func(is bool) {
							mu.Lock()
							defer mu.Unlock()
							if broken[target] && is {
								t.Errorf("%s is broken already", target)
							}
							broken[target] = is
						}
						set(true)
						return func(context.Context) error { set(false); return nil }, nil
					}})
				}
			}
			c := &crowd{room: &room{world: w, log: slog.New(slog.DiscardHandler)}, cfg: DefaultConfig()}
			chat, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			struck, err := c.strike(chat, t.Context(), rand.New(rand.NewPCG(seed, 1)))
			if err != nil {
				t.Error(err)
			}
			for _, s := range struck {
				names = append(names, s.Name)
			}
			for target, is := range broken {
				if is {
					t.Errorf("%s is still broken", target)
				}
			}
		})
		return names
	}
	first := strike(1)
	if len(first) < 100 {
		t.Errorf("only %d in an hour", len(first))
	}
	if diff := cmp.Diff(first, strike(1)); diff != "" {
		t.Errorf("one seed, two stories: %s", diff)
	}
	if cmp.Equal(first, strike(2)) {
		t.Error("two seeds, one story")
	}
}

// TestHealsDoNotWaitForEachOther: a part that was killed may need what the other fault has
// taken away, whichever was made first.
func TestHealsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		database := make(chan struct{})
		killed := func(ctx context.Context) error {
			select {
			case <-database:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		restored := func(context.Context) error { close(database); return nil }
		struck := []Struck{{Name: "kill core"}, {Name: "cut network to postgres"}}
		if err := end(t.Context(), time.Second, struck, []func(context.Context) error{killed, restored}); err != nil {
			t.Fatal(err)
		}
		if struck[0].HeldMS != 1000 || struck[1].HeldMS != 1000 {
			t.Errorf("%+v", struck)
		}
	})
}

// TestEachFaultComesBeforeOneComesAgain, of each target.
func TestEachFaultComesBeforeOneComesAgain(t *testing.T) {
	var w World
	for _, name := range []string{"kill", "cut", "slow", "silent"} {
		w.Faults = append(w.Faults, Fault{Name: name + " a", Target: "a"}, Fault{Name: name + " b", Target: "b"})
	}
	c := &crowd{room: &room{world: w}}
	rnd := rand.New(rand.NewPCG(1, 1))
	seen := map[string][]string{}
	for range 100 {
		for _, f := range c.choose(rnd) {
			seen[f.Target] = append(seen[f.Target], f.Name)
		}
	}
	if d := len(seen["a"]) - len(seen["b"]); d < -1 || d > 1 {
		t.Errorf("a %d times, b %d times", len(seen["a"]), len(seen["b"]))
	}
	for target, names := range seen {
		for round := range slices.Chunk(names, 4) {
			slices.Sort(round)
			if n := len(slices.Compact(round)); len(round) == 4 && n != 4 {
				t.Errorf("%s: %d kinds in four", target, n)
			}
		}
	}
}

func TestStrikeSaysWhatDoesNotHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := World{Faults: []Fault{{Name: "kill it", Strike: func(context.Context) (func(context.Context) error, error) {
			return func(context.Context) error { return errors.New("never again") }, nil
		}}}}
		c := &crowd{room: &room{world: w, log: slog.New(slog.DiscardHandler)}, cfg: DefaultConfig()}
		chat, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := c.strike(chat, t.Context(), rand.New(rand.NewPCG(1, 1))); err == nil || !strings.Contains(err.Error(), "kill it: never again") {
			t.Errorf("got %v", err)
		}
	})
}

func TestConfigNamesTheKey(t *testing.T) {
	for want, edit := range map[string]func(*Config){
		"duration": func(c *Config) { c.Duration = 0 },
		"users":    func(c *Config) { c.Pairs = 0 },
		"devices":  func(c *Config) { c.Devices = 9 },
		"rate":     func(c *Config) { c.Rate = 0 },
		"hall":     func(c *Config) { c.Hall = -1 },
		"calm":     func(c *Config) { c.Calm = 0 },
		"hold":     func(c *Config) { c.Hold = 0 },
		"hop":      func(c *Config) { c.Hop = -1 },
		"settle":   func(c *Config) { c.Settle = 0 },
	} {
		cfg := DefaultConfig()
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

func TestReport(t *testing.T) {
	r := Report{
		Schema: Schema, Engines: "real", Seed: 7, Faults: []Struck{{Name: "kill kafka", AtMS: 1500, HeldMS: 250, HealedMS: 3000}},
		Messages: Totals{Lost: 1, Examples: []string{"m1 is away"}}, Promises: []load.Promise{{Key: "stored", Claim: "acknowledged = stored", Measured: "1 lost"}},
	}
	r.finish()
	if r.OK {
		t.Error("a broken promise is fine")
	}
	var text, js bytes.Buffer
	if err := errors.Join(r.Write(&text, "text"), r.Write(&js, "json")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"SEED     7", "kill kafka  1.5 s  0.2 s  3.0 s", "BROKEN  acknowledged = stored  1 lost", "m1 is away"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	var back Report
	if err := json.Unmarshal(js.Bytes(), &back); err != nil || back.Seed != 7 || back.Messages.Lost != 1 {
		t.Errorf("%v %+v", err, back)
	}
}

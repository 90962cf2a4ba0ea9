package load

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/decide"
	controlpolicy "github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client/coretest"
)

const policy = `# of the edge
color:
  cohorts: # in order
    - {name: canary, match: {header: {name: x-env, exact: canary}}}
  tenants: []
services: # in order
  - {name: core, pools: [{name: baseline}, {name: canary}], routes: [{prefix: /}]}
decide: {mode: act} # or observe
`

func brokenKeys(promises []Promise) (out []string) {
	for _, p := range promises {
		if !p.Held {
			out = append(out, p.Key)
		}
	}
	return out
}

func TestChanges(t *testing.T) {
	for _, tt := range []struct {
		name   string
		set    func(*product)
		broken []string
		may    string // break as well
	}{
		{"all is well", func(*product) {}, nil, ""},
		{"changes touch the listener", func(p *product) { p.listenerTouched = true }, []string{"listener"}, ""},
		{"a change drops sockets", func(p *product) {
			p.chaos = func(change int) {
				if change == 5 {
					p.core.CloseSockets(protocol.CloseShutdown)
				}
			}
		}, []string{"sockets"}, "errors"}, // of sends under way
		{"a change makes errors", func(p *product) {
			p.chaos = func(change int) {
				p.core.Misbehave(coretest.Chaos{Send: func(n int) coretest.Verdict {
					if change >= 5 && change < 20 {
						return coretest.Refuse
					}
					return coretest.Take
				}})
			}
		}, []string{"errors"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProduct(t)
			tt.set(p)
			var out bytes.Buffer
			r, err := Changes(deadline(t), p.config(), 30, []byte(policy), &out, quiet())
			if err != nil {
				t.Fatal(err)
			}
			broken := slices.DeleteFunc(brokenKeys(r.Promises), func(key string) bool { return key == tt.may })
			if diff := cmp.Diff(tt.broken, broken); diff != "" || r.OK != (tt.broken == nil) {
				t.Errorf("broken promises (-want +got):\n%s\n%s", diff, out.String())
			}
			if string(p.policy) != policy {
				t.Errorf("the policy was not put back:\n%s", p.policy)
			}
			if testing.Verbose() {
				t.Log("\n" + out.String())
			}
		})
	}
}

// TestChangesArePaced: a change begins at most each Config.Every.
func TestChangesArePaced(t *testing.T) {
	cfg := newProduct(t).config()
	cfg.Every = 50 * time.Millisecond
	r, err := Changes(deadline(t), cfg, 11, []byte(policy), &bytes.Buffer{}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if took := r.Ended.Sub(r.Started); took < 400*time.Millisecond {
		t.Errorf("11 changes took %v, want 10 times %v", took, cfg.Every)
	}
}

// TestTurns: everybody does all of the mix, and in no round more do the same than it says.
func TestTurns(t *testing.T) {
	const people = 168
	did, times := map[int]map[string]int{}, map[string]int{}
	for _, what := range reading {
		times[what]++
	}
	for round := range len(reading) {
		at := map[string]int{}
		for i := range people {
			who, what := turn(reading, people, round*people+i)
			if did[who] == nil {
				did[who] = map[string]int{}
			}
			did[who][what]++
			at[what]++
		}
		if most := times["ws"] * (people/len(reading) + 1); at["ws"] > most {
			t.Errorf("round %d: %d send at once, want at most %d", round, at["ws"], most)
		}
	}
	for who, got := range did {
		if diff := cmp.Diff(times, got); diff != "" {
			t.Errorf("person %d (-want +got):\n%s", who, diff)
		}
	}
}

func TestChangesRefusesAPolicyItCannotChange(t *testing.T) {
	p := newProduct(t)
	for _, document := range []string{"", "color: {}", "color: {cohorts: 3}", "- 1", ":"} {
		if _, err := Changes(deadline(t), p.config(), 1, []byte(document), &bytes.Buffer{}, quiet()); err == nil || !strings.Contains(err.Error(), "policy") {
			t.Errorf("policy %q: %v, want an error that names the policy", document, err)
		}
	}
}

// TestObserving: nobody's policy acts during the run, whatever stands in it.
func TestObserving(t *testing.T) {
	for name, document := range map[string]string{
		"as it comes": string(controlpolicy.Default),
		"acts":        policy,
		"no section":  "services: [{name: core, pools: [{name: baseline}], routes: [{prefix: /}]}]\n",
		"for a group": policy[:strings.Index(policy, "decide:")] + "decide: {mode: recommend, groups: [{name: a, env: prod, tenant: acme, mode: act}, {name: b, env: prod, tenant: other}]}\n",
	} {
		got, err := observing([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		p, err := controlpolicy.Parse(got)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, got)
		}
		acts := p.Decide.Mode != decide.ModeObserve
		for _, g := range p.Decide.Groups {
			acts = acts || g.Mode != "" && g.Mode != decide.ModeObserve
		}
		if acts {
			t.Errorf("%s: the policy does not only observe:\n%s", name, got)
		}
	}
}

// TestEdits: each kind of change gives a policy that is valid, another one each turn.
func TestEdits(t *testing.T) {
	for kind := range edits() {
		seen := map[string]bool{policy: true}
		for turn := range 3 {
			got, err := edited([]byte(policy), kind, turn)
			if err != nil {
				t.Fatal(err)
			}
			if seen[string(got)] {
				t.Errorf("%s: turn %d changes nothing", kind, turn)
			}
			seen[string(got)] = true
			if _, err := controlpolicy.Parse(got); err != nil {
				t.Errorf("%s: %v\n%s", kind, err, got)
			}
			for _, comment := range []string{"# of the edge", "# in order", "# or observe"} {
				if !strings.Contains(string(got), comment) {
					t.Errorf("%s: the comment %q is lost:\n%s", kind, comment, got)
				}
			}
		}
	}
}

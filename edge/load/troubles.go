package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/observability/semconv"
)

// decisionFault is a fault and the answer that it asks for.
type decisionFault struct {
	name, what string
	want       decide.Action   // first; empty: nothing may be done
	group      string          // of the lab, that it is done with
	may        []decide.Action // what else may be done with that group
	lasts      time.Duration   // on, after the answer; or where none is wanted, at all
	// begin switches it on and returns what switches it off, also with an error where
	// that is needed.
	begin func(context.Context, *scene) (end func(context.Context) error, err error)
}

func (f decisionFault) wanted() string {
	if f.want == "" {
		if len(f.may) > 0 {
			return fmt.Sprintf("nothing, or %s of %s", f.may[0], f.group)
		}
		return "nothing"
	}
	return fmt.Sprintf("%s of %s", f.want, f.group)
}

// over is the policy's own end of what it did.
func (f decisionFault) over() decide.Action {
	switch f.want {
	case decide.Isolate:
		return decide.Release
	case decide.Shed:
		return decide.Lift
	}
	return ""
}

// scene is what a fault does its work with.
type scene struct {
	*bench
	from       time.Time
	dark, dawn time.Time // no telemetry came in between; zero: it always did
}

// since is when an answer may be waited for.
func (s *scene) since() time.Time { return later(s.from, s.dawn) }

// blind says whether nothing can have been known at a moment.
func (s *scene) blind(t time.Time) bool {
	return !s.dark.IsZero() && t.After(s.dark) && t.Before(s.dawn)
}

const (
	hurtGroup  = "canary+payment"
	noisyGroup = "prod+search"
)

// decisionFaults are the ten.
func decisionFaults() []decisionFault {
	back := []decide.Action{decide.Isolate, decide.Release}
	isolated := func(name, what string, begin func(context.Context, *scene) (func(context.Context) error, error)) decisionFault {
		return decisionFault{name: name, what: what, want: decide.Isolate, group: hurtGroup, may: back, lasts: 2 * time.Second, begin: begin}
	}
	return []decisionFault{
		isolated("latency", "pool canary answers late, every request", func(ctx context.Context, s *scene) (func(context.Context) error, error) {
			return s.hurt(ctx, faultRequest{LatencyMS: s.late().Milliseconds()}, semconv.PoolCanary)
		}),
		isolated("errors", "pool canary fails 20% of its requests", func(ctx context.Context, s *scene) (func(context.Context) error, error) {
			return s.hurt(ctx, faultRequest{ErrorRatio: 0.2}, semconv.PoolCanary)
		}),
		isolated("slow dependency", "a dependency of pool canary is slow to accept connections", slowConnects),
		{
			name: "instance killed", what: "the only instance of pool canary is killed", group: hurtGroup, may: back, lasts: 10 * time.Second,
			begin: func(ctx context.Context, s *scene) (func(context.Context) error, error) {
				if s.cfg.Kill == nil {
					return nil, errors.New("parts cannot be killed")
				}
				return nil, s.cfg.Kill(semconv.PoolCanary)
			},
		},
		{
			name: "bad route of a group", what: "an update fails most requests of one group", want: decide.RollBack, group: hurtGroup,
			begin: func(ctx context.Context, s *scene) (func(context.Context) error, error) {
				return nil, s.update(ctx, map[string]any{
					"name": "lab-bad-group", "match": []any{map[string]any{"prefix": "/v1/me", "headers": []any{map[string]any{"name": semconv.HeaderGroup, "exact": s.crowd(hurtGroup).id}}}},
					"fault": map[string]any{"abort": map[string]any{"percent": 90, "status": 503}},
				})
			},
		},
		{
			name: "everything is slow", what: "all pools answer late", lasts: 12 * time.Second,
			begin: func(ctx context.Context, s *scene) (func(context.Context) error, error) {
				return s.hurt(ctx, faultRequest{LatencyMS: s.late().Milliseconds()}, semconv.PoolBaseline, semconv.PoolCanary, semconv.PoolIsolated)
			},
		},
		{
			name: "bad update", what: "an update holds back requests of everyone", want: decide.RollBack, group: hurtGroup,
			begin: func(ctx context.Context, s *scene) (func(context.Context) error, error) {
				return nil, s.update(ctx, map[string]any{
					"name": "lab-bad", "match": []any{map[string]any{"prefix": "/v1/me"}},
					"fault": map[string]any{"delay": map[string]any{"percent": 100, "duration": s.late().String()}},
				})
			},
		},
		isolated("telemetry gap", "no telemetry for some seconds, and a fault meanwhile", gap),
		{
			name: "noisy neighbour", what: "one group asks for five times as much, and pool baseline answers late", want: decide.Shed, group: noisyGroup, may: []decide.Action{decide.Lift},
			begin: flood,
		},
		{
			name: "flapping", what: "pool canary answers late, and well again, every four seconds", want: decide.Isolate, group: hurtGroup, may: back, lasts: 25 * time.Second,
			begin: flap,
		},
	}
}

// chosen are the faults of these names, all of them where there is none.
func chosen(only []string) ([]decisionFault, error) {
	all := decisionFaults()
	if len(only) == 0 {
		return all, nil
	}
	var out []decisionFault
	for _, name := range only {
		i := slices.IndexFunc(all, func(f decisionFault) bool { return f.name == name })
		if i < 0 {
			var names []string
			for _, f := range all {
				names = append(names, f.name)
			}
			return nil, fmt.Errorf("fault %q is none of %s", name, strings.Join(names, ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}

// late is a latency that breaks the objective beyond doubt.
func (s *scene) late() time.Duration { return 2 * s.cfg.Objective }

// hurt breaks pools until the end.
func (s *scene) hurt(ctx context.Context, f faultRequest, pools ...string) (func(context.Context) error, error) {
	f.ForMS = (5 * time.Minute).Milliseconds()
	end := func(ctx context.Context) (err error) {
		for _, pool := range pools {
			err = errors.Join(err, s.admin.mendCore(ctx, s.cfg.Cores[pool]))
		}
		return err
	}
	for _, pool := range pools {
		if err := s.admin.breakCore(ctx, s.cfg.Cores[pool], f); err != nil {
			return end, err
		}
	}
	return end, nil
}

func slowConnects(ctx context.Context, s *scene) (func(context.Context) error, error) {
	addr, stop, err := slowDependency()
	if err != nil {
		return nil, err
	}
	mend, err := s.hurt(ctx, faultRequest{Dial: addr}, semconv.PoolCanary)
	return func(ctx context.Context) error {
		defer stop()
		return mend(ctx)
	}, err
}

// update puts a policy with one rule more into force. Whether it stays is the product's.
func (s *scene) update(ctx context.Context, rule map[string]any) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(s.policy, &doc); err != nil {
		return err
	}
	rules, _, err := servedRules(doc.Content[0])
	if err != nil {
		return err
	}
	if err := add(rules, rule); err != nil {
		return err
	}
	document, err := yaml.Marshal(&doc)
	if err != nil {
		return err
	}
	return s.control.PutPolicy(ctx, document, operator, "a bad update, on purpose")
}

// gapFor is how long no telemetry comes: longer than what counts as fresh.
const gapFor = 10 * time.Second

// gap suspends the receiver of telemetry, breaks a pool, and lets the receiver go on.
func gap(ctx context.Context, s *scene) (func(context.Context) error, error) {
	if s.cfg.Suspend == nil {
		return nil, errors.New("the receiver of telemetry cannot be suspended")
	}
	resume, err := s.cfg.Suspend()
	if err != nil {
		return nil, fmt.Errorf("suspend the receiver of telemetry: %w", err)
	}
	resume = sync.OnceValue(resume)
	// What it had taken before may still become visible.
	if !until(ctx, time.Now().Add(time.Second)) {
		return func(context.Context) error { return resume() }, ctx.Err()
	}
	s.dark = time.Now()
	mend, err := s.hurt(ctx, faultRequest{LatencyMS: s.late().Milliseconds()}, semconv.PoolCanary)
	end := func(ctx context.Context) error { return errors.Join(resume(), mend(ctx)) }
	if err != nil {
		return end, err
	}
	until(ctx, time.Now().Add(gapFor))
	s.dawn = time.Now()
	return end, resume()
}

// flood lets a group ask for five times as much, of what costs little, while the pool that
// it shares answers late: until edges limit it.
func flood(ctx context.Context, s *scene) (func(context.Context) error, error) {
	mend, err := s.hurt(ctx, faultRequest{LatencyMS: s.late().Milliseconds()}, semconv.PoolBaseline)
	if err != nil {
		return mend, err
	}
	flooding, stop := context.WithCancel(ctx)
	c, done := s.crowd(noisyGroup), make(chan struct{})
	go func() {
		defer close(done)
		work := context.WithoutCancel(flooding)
		pace(flooding, time.Now(), 4*s.cfg.Rate, s.cfg.MaxInFlight, func(i int, _ time.Time) {
			ctx, cancel := context.WithTimeout(work, patience)
			defer cancel()
			_, _, _ = c.people[i%len(c.people)].user.Me(ctx) // 429 is an answer
		}, func(int, time.Time) {})
	}()
	return func(ctx context.Context) error {
		stop()
		<-done
		return mend(ctx)
	}, nil
}

// flap switches a fault on and off until the end.
func flap(ctx context.Context, s *scene) (func(context.Context) error, error) {
	flapping, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		var err error
		for err == nil && flapping.Err() == nil {
			var mend func(context.Context) error
			mend, err = s.hurt(context.WithoutCancel(flapping), faultRequest{LatencyMS: s.late().Milliseconds()}, semconv.PoolCanary)
			until(flapping, time.Now().Add(4*time.Second))
			err = errors.Join(err, mend(context.WithoutCancel(flapping)))
			until(flapping, time.Now().Add(4*time.Second))
		}
		done <- err
	}()
	return func(context.Context) error {
		stop()
		return <-done
	}, nil
}

// quickPolicy is the policy with shorter times, and an objective of latency that the
// machine keeps.
func quickPolicy(policy []byte, objective time.Duration) ([]byte, error) {
	return deciding(policy, func(section *yaml.Node) error {
		for _, s := range []struct {
			key   string
			value any
		}{
			{"mode", string(decide.ModeAct)}, {"maxP95", objective.String()}, {"longWindow", quickLong.String()},
			{"isolateFor", "8s"}, {"isolateForMax", "1m"}, {"releaseSteps", []int{10}}, {"releaseStepFor", "3s"},
			{"rollbackWithin", quickLong.String()}, {"shedFactor", 3},
		} {
			if err := set(section, s.key, s.value); err != nil {
				return err
			}
		}
		return nil
	})
}

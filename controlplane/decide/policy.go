package decide

import (
	"fmt"
	"time"
)

// Mode says whether a decision is carried out.
type Mode string

// The modes. In ModeObserve decisions are made, recorded and shown, and move nothing;
// in ModeRecommend people are told of them as well, and do what they think right.
const (
	ModeObserve   Mode = "observe"
	ModeRecommend Mode = "recommend"
	ModeAct       Mode = "act"
)

func (m Mode) known() bool { return m == ModeObserve || m == ModeRecommend || m == ModeAct }

// Policy bounds what is decided without a person. Durations and ratios are the
// operator's; [DefaultPolicy] holds values for the pace of one machine.
type Policy struct {
	Mode Mode `yaml:"mode"`

	// A group breaks its objectives when any is exceeded over ShortWindow.
	MaxErrorRatio float64       `yaml:"maxErrorRatio"` // 0 to 1
	MaxP95        time.Duration `yaml:"maxP95"`
	MaxP99        time.Duration `yaml:"maxP99"` // 0: there is none

	// A group that breaks an objective is bad only where it is also worse than what
	// it is compared with: error ratio higher by ErrorRatioDifference, or P95
	// higher by P95Factor, or a P99 that what it is compared with keeps.
	ErrorRatioDifference float64 `yaml:"errorRatioDifference"` // 0 to 1
	P95Factor            float64 `yaml:"p95Factor"`            // at least 1

	// Significance is how improbable it must be that a group which is like what it is
	// compared with looks as bad, in one window at one evaluation. It is a budget: four
	// evaluations a second are 3.5e8 in 1,000 days of a group, and the sum of their
	// chances bounds how often a healthy one is found bad, however much windows overlap.
	// 1 asks for nothing.
	Significance float64 `yaml:"significance"` // above 0, at most 1

	// QuickWindow shows first what is beyond doubt; 0: there is none. Nothing else is
	// judged by it.
	QuickWindow time.Duration `yaml:"quickWindow"`
	ShortWindow time.Duration `yaml:"shortWindow"`
	LongWindow  time.Duration `yaml:"longWindow"` // where the short one is thin; also what a group is compared with
	MinRequests uint64        `yaml:"minRequests"`
	StaleAfter  time.Duration `yaml:"staleAfter"` // telemetry older than this decides nothing

	// Hysteresis: BadEvaluations bad ones in a row enter isolation, SlowEvaluations
	// where all that is sure is that most requests are slower, and chance is not below
	// the square of Significance: what waits behind one stall is slow together, and not
	// each by itself as the test has it. An isolated group counts as well again only
	// below LeaveFraction of every objective.
	BadEvaluations  int     `yaml:"badEvaluations"`
	SlowEvaluations int     `yaml:"slowEvaluations"`
	LeaveFraction   float64 `yaml:"leaveFraction"` // above 0, at most 1

	// ReleaseSteps are shares of a group's users, in percent and growing, that are tried in
	// its own pool before all are; each for ReleaseStepFor, as long as they fare well.
	ReleaseSteps   []uint32      `yaml:"releaseSteps"`
	ReleaseStepFor time.Duration `yaml:"releaseStepFor"`

	// ShedFactor is how much a group's traffic must have grown to be limited where the
	// rest of its pool suffers; 0: none is.
	ShedFactor float64 `yaml:"shedFactor"`

	// PrewarmSaturation is how full a pool may be, as the mean of its instances, before room
	// is made in it; 0: its saturation is not looked at. What is not measured is not judged.
	PrewarmSaturation float64 `yaml:"prewarmSaturation"` // 1 is full

	// RollbackWithin is for how long an update of the configuration is taken back where a
	// group becomes bad by it; 0: it is not.
	RollbackWithin time.Duration `yaml:"rollbackWithin"`

	Cooldown      time.Duration `yaml:"cooldown"`      // between two moves of one group
	IsolateFor    time.Duration `yaml:"isolateFor"`    // then the group is tried in its own pool again
	IsolateForMax time.Duration `yaml:"isolateForMax"` // IsolateFor doubles with each relapse up to this
	MaxIsolated   int           `yaml:"maxIsolated"`   // groups isolated or limited by policy at one time

	// IgnoreRoutes are routes whose requests say nothing about a group, such as a log-in
	// that is slow on purpose: who measures leaves them out.
	IgnoreRoutes []string `yaml:"ignoreRoutes"`

	// Groups have objectives or a mode of their own.
	Groups []GroupPolicy `yaml:"groups,omitempty"`
}

// DefaultPolicy decides within three seconds of a fault in a group of some 50
// requests a second; docs/benchmarks.md has the figures. One bad evaluation is enough
// because Significance asks for more than any number of them did.
func DefaultPolicy() Policy {
	return Policy{
		Mode:                 ModeAct,
		MaxErrorRatio:        0.05,
		MaxP95:               500 * time.Millisecond,
		ErrorRatioDifference: 0.02,
		P95Factor:            2,
		Significance:         1e-8,
		QuickWindow:          time.Second,
		ShortWindow:          2 * time.Second,
		LongWindow:           30 * time.Second,
		MinRequests:          10,
		StaleAfter:           5 * time.Second,
		BadEvaluations:       1,
		SlowEvaluations:      1,
		LeaveFraction:        0.8,
		ReleaseSteps:         []uint32{1, 10},
		ReleaseStepFor:       5 * time.Second,
		ShedFactor:           3,
		PrewarmSaturation:    0.85,
		RollbackWithin:       time.Minute,
		Cooldown:             3 * time.Second,
		IsolateFor:           30 * time.Second,
		IsolateForMax:        10 * time.Minute,
		MaxIsolated:          3,
	}
}

// FieldError is a value that cannot be used; Field is its key in the policy file.
type FieldError struct {
	Field string
	Err   string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err }

// Validate returns every [FieldError] of p.
func (p Policy) Validate() []*FieldError {
	var errs []*FieldError
	check := func(ok bool, field, format string, args ...any) {
		if !ok {
			errs = append(errs, &FieldError{Field: field, Err: fmt.Sprintf(format, args...)})
		}
	}
	ratio := func(v float64) bool { return v >= 0 && v <= 1 } // false for NaN
	check(p.Mode.known(), "mode", "%q is none of %q, %q and %q", p.Mode, ModeObserve, ModeRecommend, ModeAct)
	check(ratio(p.MaxErrorRatio), "maxErrorRatio", "%v is not between 0 and 1", p.MaxErrorRatio)
	check(p.MaxP95 > 0, "maxP95", "%v is not above 0", p.MaxP95)
	check(p.MaxP99 >= 0, "maxP99", "%v is neither 0 nor above it", p.MaxP99)
	check(ratio(p.ErrorRatioDifference), "errorRatioDifference", "%v is not between 0 and 1", p.ErrorRatioDifference)
	check(p.P95Factor >= 1 && p.P95Factor <= 1000, "p95Factor", "%v is not between 1 and 1000", p.P95Factor)
	check(p.Significance > 0 && p.Significance <= 1, "significance", "%v is not above 0 and at most 1", p.Significance)
	check(p.QuickWindow == 0 || p.QuickWindow >= time.Second && p.QuickWindow <= max(time.Second, p.ShortWindow), "quickWindow", "%v is neither 0 nor between 1s and shortWindow (%v)", p.QuickWindow, p.ShortWindow)
	check(p.ShortWindow >= time.Second && p.ShortWindow <= time.Minute, "shortWindow", "%v is not between 1s and 1m", p.ShortWindow)
	check(p.LongWindow >= p.ShortWindow && p.LongWindow <= time.Hour, "longWindow", "%v is not between shortWindow (%v) and 1h", p.LongWindow, p.ShortWindow)
	check(p.MinRequests >= 1, "minRequests", "0 would decide on nothing")
	check(p.StaleAfter >= 500*time.Millisecond && p.StaleAfter <= time.Minute, "staleAfter", "%v is not between 500ms and 1m", p.StaleAfter)
	check(p.BadEvaluations >= 1 && p.BadEvaluations <= 100, "badEvaluations", "%d is not between 1 and 100", p.BadEvaluations)
	check(p.SlowEvaluations >= 1 && p.SlowEvaluations <= 100, "slowEvaluations", "%d is not between 1 and 100", p.SlowEvaluations)
	check(p.LeaveFraction > 0 && p.LeaveFraction <= 1, "leaveFraction", "%v is not above 0 and at most 1", p.LeaveFraction)
	check(growing(p.ReleaseSteps), "releaseSteps", "%v are not at most 8 growing percentages from 1 to 99", p.ReleaseSteps)
	check(p.ReleaseStepFor >= p.Cooldown && p.ReleaseStepFor <= time.Hour, "releaseStepFor", "%v is not between cooldown (%v) and 1h", p.ReleaseStepFor, p.Cooldown)
	check(p.ShedFactor == 0 || p.ShedFactor >= 1.5 && p.ShedFactor <= 1000, "shedFactor", "%v is neither 0 nor between 1.5 and 1000", p.ShedFactor)
	check(p.PrewarmSaturation == 0 || p.PrewarmSaturation >= 0.1 && p.PrewarmSaturation <= 1, "prewarmSaturation", "%v is neither 0 nor between 0.1 and 1", p.PrewarmSaturation)
	check(p.RollbackWithin == 0 || p.RollbackWithin >= p.ShortWindow && p.RollbackWithin <= time.Hour, "rollbackWithin", "%v is neither 0 nor between shortWindow (%v) and 1h", p.RollbackWithin, p.ShortWindow)
	check(p.Cooldown >= p.ShortWindow && p.Cooldown <= time.Hour, "cooldown", "%v is not between shortWindow (%v) and 1h: a shorter one would judge a group by what its last pool served", p.Cooldown, p.ShortWindow)
	check(p.IsolateFor >= p.Cooldown && p.IsolateFor <= 24*time.Hour, "isolateFor", "%v is not between cooldown (%v) and 24h", p.IsolateFor, p.Cooldown)
	check(p.IsolateForMax >= p.IsolateFor && p.IsolateForMax <= 7*24*time.Hour, "isolateForMax", "%v is not between isolateFor (%v) and 168h", p.IsolateForMax, p.IsolateFor)
	check(p.MaxIsolated >= 1 && p.MaxIsolated <= 10000, "maxIsolated", "%d is not between 1 and 10000", p.MaxIsolated)
	return append(errs, p.validateGroups()...)
}

// growing says whether steps are percentages in their order.
func growing(steps []uint32) bool {
	last := uint32(0)
	for _, s := range steps {
		if s <= last || s > 99 {
			return false
		}
		last = s
	}
	return len(steps) <= 8
}

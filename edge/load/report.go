package load

import (
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// CircleSchema names the form of [Report] in JSON. It changes with any change that a
// reader could trip over; new keys may come without.
const CircleSchema = "tracegate.load.circle/1"

// Report is the outcome of [Circle]. Times are RFC 3339, durations milliseconds.
type Report struct {
	Schema   string        `json:"schema"`
	OK       bool          `json:"ok"` // every promise held
	Started  time.Time     `json:"started"`
	Ended    time.Time     `json:"ended"`
	Settings Settings      `json:"settings"`
	Timeline []Mark        `json:"timeline"`
	Groups   []GroupReport `json:"groups"`
	Promises []Promise     `json:"promises"`
	// Decisions are all that were made about the lab's groups during the run, also those
	// that the story did not expect (as on a machine that is too busy for the load).
	Decisions []decide.Decision `json:"decisions"`
}

// Settings is what was asked for.
type Settings struct {
	DurationMS   float64 `json:"duration_ms"`
	Rate         float64 `json:"rate_per_group"` // requests a second
	Users        int     `json:"users_per_group"`
	FaultGroup   string  `json:"fault_group,omitempty"`
	FaultPool    string  `json:"fault_pool,omitempty"`
	FaultLatency float64 `json:"fault_latency_ms,omitempty"`
	FaultErrors  float64 `json:"fault_error_ratio,omitempty"`
}

// Mark is a moment of the timeline. Time is absent where the moment did not come.
type Mark struct {
	Event string    `json:"event"`
	Time  time.Time `json:"time,omitzero"`
	// AfterFault is milliseconds since the fault was switched on; negative before.
	AfterFault float64 `json:"after_fault_ms"`
	Note       string  `json:"note,omitempty"`
}

// The events of a timeline, in the order in which they should come.
const (
	EventLoadOn         = "load_on"
	EventFaultOn        = "fault_on"
	EventFirstBad       = "first_bad_second" // as the clients saw it
	EventDecision       = "isolate_decision"
	EventProgrammed     = "isolate_xds_acknowledged"
	EventFirstIsolated  = "first_request_isolated"
	EventSocketsMoved   = "sockets_moved"
	EventFaultOff       = "fault_off"
	EventRelease        = "release_decision"
	EventReleaseApplied = "release_xds_acknowledged"
	EventFirstReleased  = "first_request_released"
	EventSocketsBack    = "sockets_back"
	EventLoadOff        = "load_off"
)

// GroupReport is what one group saw.
type GroupReport struct {
	Name     string   `json:"name"`
	ID       string   `json:"id"`
	Faulty   bool     `json:"faulty"` // the fault was meant for it
	Phases   Phases   `json:"phases"`
	Total    Figures  `json:"total"`
	Sockets  Sockets  `json:"sockets"`
	Messages Messages `json:"messages"`
}

// Phases are the figures by time: before the fault; from the fault until the group was
// out of it (routes and all sockets); until the release; after it. The phases of the
// other groups are cut at the same moments.
type Phases struct {
	Before   Figures `json:"before"`
	Fault    Figures `json:"fault"`
	Isolated Figures `json:"isolated"`
	After    Figures `json:"after"`
}

// Promise is a claim of the product and what was measured of it.
type Promise struct {
	Key      string `json:"key"`
	Claim    string `json:"claim"`
	Measured string `json:"measured"`
	Held     bool   `json:"held"`
}

// timeline puts marks in order and relates them to the fault.
func timeline(fault time.Time, marks []Mark) []Mark {
	out := make([]Mark, len(marks))
	for i, m := range marks {
		if !m.Time.IsZero() && !fault.IsZero() {
			m.AfterFault = ms(m.Time.Sub(fault))
		}
		out[i] = m
	}
	return out
}

// mark finds an event; the zero Time where it did not come.
func mark(marks []Mark, event string) time.Time {
	for _, m := range marks {
		if m.Event == event {
			return m.Time
		}
	}
	return time.Time{}
}

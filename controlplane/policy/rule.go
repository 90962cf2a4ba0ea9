package policy

import (
	"slices"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
)

// Rule says what happens to the requests it matches. Which pool serves them is
// still decided by group and cohort, unless the rule pins a pool.
//
// Rules of all services are tried before all routes, services and rules in their
// order; the first that matches is the only one that counts.
type Rule struct {
	Name  string  `yaml:"name"`  // http.route in telemetry; unique in its service
	Match []Match `yaml:"match"` // any of them

	Service string    `yaml:"service,omitempty"` // that serves; the one it stands under where empty
	Pool    string    `yaml:"pool,omitempty"`    // pins: group and cohort do not count
	Until   time.Time `yaml:"until,omitempty"`   // when the pin ends; never where zero
	Canary  *Canary   `yaml:"canary,omitempty"`
	Mirror  *Mirror   `yaml:"mirror,omitempty"`

	// Instead of serving.
	Redirect       *Redirect       `yaml:"redirect,omitempty"`
	DirectResponse *DirectResponse `yaml:"directResponse,omitempty"`

	Rewrite     *Rewrite      `yaml:"rewrite,omitempty"`
	WebSocket   bool          `yaml:"websocket,omitempty"`
	GRPC        bool          `yaml:"grpc,omitempty"`        // as of a [Route]
	Timeout     time.Duration `yaml:"timeout,omitempty"`     // whole response, not for WebSockets; 15s where zero
	IdleTimeout time.Duration `yaml:"idleTimeout,omitempty"` // without a byte either way; 5m, for WebSockets 1h, where zero
	Retries     *Retries      `yaml:"retries,omitempty"`

	RequestHeaders  *HeaderChanges `yaml:"requestHeaders,omitempty"`
	ResponseHeaders *HeaderChanges `yaml:"responseHeaders,omitempty"`

	CORS            *CORS      `yaml:"cors,omitempty"`
	RateLimit       *RateLimit `yaml:"rateLimit,omitempty"`
	Limits          []string   `yaml:"limits,omitempty"`    // shared by all edges; names of Policy.Limits
	Addresses       *Addresses `yaml:"addresses,omitempty"` // who may ask
	JWT             *RuleJWT   `yaml:"jwt,omitempty"`       // who may ask
	Fault           *Fault     `yaml:"fault,omitempty"`
	MaxRequestBytes uint32     `yaml:"maxRequestBytes,omitempty"` // larger bodies get 413; 0 for no limit
}

// Match holds where everything in it holds. At most one of Path, Prefix and Regex is set.
type Match struct {
	Hosts   []string      `yaml:"hosts,omitempty"`   // any of them: exact or *.suffix, without port
	Path    string        `yaml:"path,omitempty"`    // exact
	Prefix  string        `yaml:"prefix,omitempty"`  // on path segments, as in [Route]
	Regex   string        `yaml:"regex,omitempty"`   // RE2, of the whole path without query
	Methods []string      `yaml:"methods,omitempty"` // any of them
	Headers []HeaderMatch `yaml:"headers,omitempty"` // all of them
	Cookies []CookieMatch `yaml:"cookies,omitempty"` // all of them
	Query   []QueryMatch  `yaml:"query,omitempty"`   // all of them

	// Tenant and Cohort are what the edge has found, never what a client says.
	Tenant string      `yaml:"tenant,omitempty"`
	Cohort string      `yaml:"cohort,omitempty"` // a name in color.cohorts
	Color  group.Color `yaml:"-"`                // of Cohort; Parse writes it, operators do not
}

// HeaderMatch is one condition; exactly one of Exact, Prefix and Present is set.
// A header that is missing counts as empty where Not is set.
type HeaderMatch struct {
	Name    string `yaml:"name"`
	Exact   string `yaml:"exact,omitempty"`
	Prefix  string `yaml:"prefix,omitempty"`
	Present bool   `yaml:"present,omitempty"`
	Not     bool   `yaml:"not,omitempty"`
}

// CookieMatch is one condition on a cookie; exactly one of Exact, Prefix and Present is
// set. A cookie that is missing counts as empty where Not is set; of two with the same
// name the first counts.
type CookieMatch struct {
	Name    string `yaml:"name"`
	Exact   string `yaml:"exact,omitempty"`
	Prefix  string `yaml:"prefix,omitempty"`
	Present bool   `yaml:"present,omitempty"`
	Not     bool   `yaml:"not,omitempty"`
}

// QueryMatch is one condition on a query parameter; exactly one of Exact, Prefix
// and Present is set.
type QueryMatch struct {
	Name    string `yaml:"name"`
	Exact   string `yaml:"exact,omitempty"`
	Prefix  string `yaml:"prefix,omitempty"`
	Present bool   `yaml:"present,omitempty"`
}

// Canary serves a share of users from other pools. It splits what baseline would
// serve: moved groups and cohorts keep their pools. A user is whoever sends the
// same cookie or header; who sends none is served by baseline.
//
// A user's place between 0 and 100 is a hash of that value. The first pool takes
// users from 0 upwards and the second from 100 downwards, so that a pool that
// grows takes users from baseline only, and none flips.
type Canary struct {
	Cookie string       `yaml:"cookie,omitempty"` // exactly one of Cookie and Header is set
	Header string       `yaml:"header,omitempty"`
	Pools  []CanaryPool `yaml:"pools"` // one or two, without baseline
}

// CanaryPool is a share of users.
type CanaryPool struct {
	Pool    string  `yaml:"pool"`
	Percent float64 `yaml:"percent"` // 0 to 100, in steps of 0.01
}

// CanaryPlaces is all users, in steps of 0.01 percent.
const CanaryPlaces = 10_000

// Shares are how many places each pool takes; together they are never more than all.
func (c *Canary) Shares() []uint32 {
	rest, out := uint32(CanaryPlaces), make([]uint32, len(c.Pools))
	for i, p := range c.Pools {
		out[i] = min(rest, uint32(p.Percent*100+0.5))
		rest -= out[i]
	}
	return out
}

// Mirror sends a copy of requests to a pool and drops its responses.
type Mirror struct {
	Pool    string  `yaml:"pool"`
	Percent float64 `yaml:"percent"`
}

// Rewrite changes what the upstream sees.
type Rewrite struct {
	// Path replaces what each match names: its whole path, its prefix, or, with \1
	// and so on for what was captured, what its regex matched.
	Path string `yaml:"path,omitempty"`
	Host string `yaml:"host,omitempty"`
}

// Redirect answers with another place. What is not set stays as it was asked for.
type Redirect struct {
	HTTPS      bool   `yaml:"https,omitempty"`
	Host       string `yaml:"host,omitempty"`
	Path       string `yaml:"path,omitempty"` // as in [Rewrite]
	Status     uint32 `yaml:"status"`         // 301, 302, 303, 307 or 308; 302 where zero
	StripQuery bool   `yaml:"stripQuery,omitempty"`
}

// DirectResponse answers at the edge.
type DirectResponse struct {
	Status uint32 `yaml:"status"` // 200 to 599
	Body   string `yaml:"body,omitempty"`
}

// Retries replace those of the edge, which repeat only what cannot have reached
// the application, and safe methods after a reset. A pool's retry budget bounds
// them all.
type Retries struct {
	Attempts      uint32        `yaml:"attempts"` // after the first
	PerTryTimeout time.Duration `yaml:"perTryTimeout,omitempty"`
	On            []string      `yaml:"on"`                    // conditions, in Envoy's words
	StatusCodes   []uint32      `yaml:"statusCodes,omitempty"` // for the condition retriable-status-codes
}

// HeaderChanges never name what the edge itself writes. Values are literal.
type HeaderChanges struct {
	Set    map[string]string `yaml:"set,omitempty"` // replaces
	Add    map[string]string `yaml:"add,omitempty"` // one more
	Remove []string          `yaml:"remove,omitempty"`
}

// CORS lets browsers of other origins in, and answers their preflight requests.
type CORS struct {
	Origins       []string      `yaml:"origins"` // https://host, https://*.suffix, or * for any
	Methods       []string      `yaml:"methods,omitempty"`
	Headers       []string      `yaml:"headers,omitempty"`
	ExposeHeaders []string      `yaml:"exposeHeaders,omitempty"`
	MaxAge        time.Duration `yaml:"maxAge,omitempty"`
	Credentials   bool          `yaml:"credentials,omitempty"`
}

// RateLimit is a token bucket of each edge, full again after each change of routes.
// Without a token requests get 429.
type RateLimit struct {
	RequestsPerSecond uint32 `yaml:"requestsPerSecond"`
	Burst             uint32 `yaml:"burst"` // RequestsPerSecond where zero
}

// Fault breaks requests on purpose.
type Fault struct {
	Delay *FaultDelay `yaml:"delay,omitempty"`
	Abort *FaultAbort `yaml:"abort,omitempty"`
}

// FaultDelay holds back a share of requests.
type FaultDelay struct {
	Percent  float64       `yaml:"percent"`
	Duration time.Duration `yaml:"duration"`
}

// FaultAbort answers a share of requests with an error.
type FaultAbort struct {
	Percent float64 `yaml:"percent"`
	Status  uint32  `yaml:"status"` // 400 to 599
}

// Answers says whether the rule is answered by the edge itself.
func (r *Rule) Answers() bool { return r.Redirect != nil || r.DirectResponse != nil }

// At is the policy as it stands at now: a pin that has ended is gone. next is when
// another one ends, zero where none will. p is not changed; what stays as it is, both
// share.
func (p Policy) At(now time.Time) (_ Policy, next time.Time) {
	services := slices.Clone(p.Services)
	for i := range services {
		for j, r := range p.Services[i].Rules {
			switch {
			case r.Until.IsZero():
			case !now.Before(r.Until):
				if shared := &p.Services[i].Rules[0]; shared == &services[i].Rules[0] {
					services[i].Rules = slices.Clone(services[i].Rules)
				}
				r.Pool, r.Until = "", time.Time{}
				services[i].Rules[j] = r
			case next.IsZero() || r.Until.Before(next):
				next = r.Until
			}
		}
	}
	p.Services = services
	return p, next
}

// Package plan joins everything that says how the edge should behave - policy,
// endpoints, groups that were moved, settings of the edge - into one complete
// desired state. It is the model in the middle: sources feed it, controlplane/xds
// renders it for Envoy, mesh/placement tells core.
//
// It is pure and knows nothing of Envoy. A Plan is a whole, never a difference:
// whoever missed some is right again with the next.
package plan

import (
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
)

// Plan is the complete desired state of an edge.
type Plan struct {
	Edge       Edge      `yaml:"edge"`
	FailClosed bool      `yaml:"failClosed"` // requests the filter did not color get 503
	Filter     string    `yaml:"filter"`     // color.Policy as JSON, the filter's configuration
	Services   []Service `yaml:"services"`   // in the order their routes are tried
	Cohorts    []Cohort  `yaml:"cohorts"`    // that have a pool of their own
	Moves      []Move    `yaml:"moves"`      // sorted by group
	// Retired are services that are gone, and that edges may still have routes to.
	Retired []string `yaml:"retired,omitempty"`
}

// Edge is what an operator of the process sets, not the policy.
type Edge struct {
	Listen  string `yaml:"listen"`  // IP address and port clients connect to
	Observe string `yaml:"observe"` // IP address and port of the OTLP gRPC receiver
	JWKS    string `yaml:"jwks"`    // public keys of sessions, JSON (RFC 7517, RFC 8037); empty: no claims
	Wasm    Wasm   `yaml:"wasm"`
}

// Wasm is the edge filter's module, on a file system that Envoy sees.
type Wasm struct {
	Path   string `yaml:"path"`   // absolute; empty: the edge runs without a filter
	SHA256 string `yaml:"sha256"` // hex; names the virtual machine, so a new module gets a new one
}

// Service is one upstream application.
type Service struct {
	Name   string  `yaml:"name"`
	Pools  []Pool  `yaml:"pools"` // baseline is among them
	Routes []Route `yaml:"routes"`
	Rules  []Rule  `yaml:"rules,omitempty"`
}

// Route and Rule are the policy's, with everything filled in. What they say is between
// the operator and the edge, so a plan hands them on as they are, with their parts.
type (
	Route         = policy.Route
	Rule          = policy.Rule
	Match         = policy.Match
	Redirect      = policy.Redirect
	Retries       = policy.Retries
	HeaderChanges = policy.HeaderChanges
	CORS          = policy.CORS
	Fault         = policy.Fault
	RateLimit     = policy.RateLimit
)

// Pool is a set of instances; Endpoints may be empty, then baseline serves.
type Pool struct {
	Name      string   `yaml:"name"`
	Endpoints []string `yaml:"endpoints"` // IP address and port, sorted

	// As in [policy.Pool]; nil for the defaults of controlplane/xds.
	CircuitBreakers  *policy.CircuitBreakers  `yaml:"circuitBreakers,omitempty"`
	OutlierDetection *policy.OutlierDetection `yaml:"outlierDetection,omitempty"`
	HealthCheck      *policy.HealthCheck      `yaml:"healthCheck,omitempty"`
	PanicThreshold   *float64                 `yaml:"panicThreshold,omitempty"`
}

// Has says whether the service has the pool.
func (s Service) Has(pool string) bool {
	for _, p := range s.Pools {
		if p.Name == pool {
			return true
		}
	}
	return false
}

// Cohort is a color that is served by a pool of its own.
type Cohort struct {
	Name  string      `yaml:"name"`
	Color group.Color `yaml:"color"`
	Pool  string      `yaml:"pool"`
}

// Move is a group that a decision or a person placed elsewhere.
type Move struct {
	Group group.ID `yaml:"group"`
	Pool  string   `yaml:"pool"`
}

// ClusterName is the name of a service's pool wherever two sides must agree on
// it: CDS, EDS, routes, access logs. Neither part may contain a dot
// (controlplane/policy sees to that), so the name can be taken apart again.
func ClusterName(service, pool string) string { return service + "." + pool }

// Placement is what core and the console may know of p.
func (p Plan) Placement(version int64) placement.Placement {
	out := placement.Placement{
		Version: version,
		Cohorts: make(map[string]string, len(p.Cohorts)),
		Groups:  make(map[group.ID]string, len(p.Moves)),
	}
	for _, c := range p.Cohorts {
		out.Cohorts[c.Color.String()] = c.Pool
	}
	for _, m := range p.Moves {
		out.Groups[m.Group] = m.Pool
	}
	return out
}

// Package plan joins everything that says how the edge should behave - policy,
// endpoints, groups that were moved, settings of the edge - into one complete
// desired state. It is the model in the middle: sources feed it, controlplane/xds
// renders it for Envoy, mesh/placement tells core.
//
// It is pure and knows nothing of Envoy. A Plan is a whole, never a difference:
// whoever missed some is right again with the next.
package plan

import (
	"slices"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
)

// Plan is the complete desired state of an edge.
type Plan struct {
	Edge       Edge           `yaml:"edge"`
	FailClosed bool           `yaml:"failClosed"` // requests the filter did not color get 503
	Filter     string         `yaml:"filter"`     // color.Policy as JSON, the filter's configuration
	Services   []Service      `yaml:"services"`   // in the order their routes are tried
	Limits     []policy.Limit `yaml:"limits,omitempty"`
	// JWT are identity providers beside the product's own sessions, each with the keys that
	// are known of it now, none where they were never to be had.
	JWT     []policy.JWTProvider `yaml:"jwt,omitempty"`
	Cohorts []Cohort             `yaml:"cohorts"`         // that have a pool of their own
	Moves   []Move               `yaml:"moves"`           // sorted by group
	Sheds   []Shed               `yaml:"sheds,omitempty"` // sorted by group
	// Retired are services that are gone, and that edges may still have routes to.
	Retired []string `yaml:"retired,omitempty"`
	TLS     *TLS     `yaml:"tls,omitempty"` // nil: nothing is encrypted
	Secrets []Secret `yaml:"secrets,omitempty"`
}

// Edge is what an operator of the process sets, not the policy.
type Edge struct {
	Listen  string `yaml:"listen"`  // IP address and port clients connect to
	Observe string `yaml:"observe"` // IP address and port of the OTLP gRPC receiver
	JWKS    string `yaml:"jwks"`    // public keys of sessions, JSON (RFC 7517, RFC 8037); empty: no claims
	Wasm    Wasm   `yaml:"wasm"`

	TLS EdgeTLS `yaml:"tls,omitempty"`
	// Identity is the identity folder (mesh/identity) of edges, absolute, with which they
	// and the OTLP receiver prove to each other who they are; empty: unencrypted.
	Identity string `yaml:"identity,omitempty"`
	// Certificates is what the certificates folder holds, by name.
	Certificates map[string]certificate.Pair `yaml:"certificates,omitempty"`
	// Keys are the last good JWKS of identity providers, by [policy.JWTProvider.JWKSURL].
	Keys map[string]string `yaml:"keys,omitempty"`
	// RateLimit is the IP address and port of the rate limit service (edge/ratelimit,
	// gRPC); empty: no limits are shared.
	RateLimit string `yaml:"rateLimit,omitempty"`
	// TrustedHops is how many proxies stand before the edge, each of which adds the
	// address of its peer to x-forwarded-for; 0: the peer is the client.
	TrustedHops uint32 `yaml:"trustedHops,omitempty"`
}

// Wasm is the edge filter's module, a file that every edge has.
type Wasm struct {
	Path   string `yaml:"path"`   // its name in the folder that Envoy runs in, or absolute; empty: the edge runs without a filter
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
	// Backup serve where none of Endpoints does, before baseline.
	Backup []string `yaml:"backup,omitempty"`
	// Draining are those of Endpoints that get no new requests.
	Draining []string `yaml:"draining,omitempty"`

	// As in [policy.Pool]; nil for the defaults of controlplane/xds.
	CircuitBreakers  *policy.CircuitBreakers  `yaml:"circuitBreakers,omitempty"`
	OutlierDetection *policy.OutlierDetection `yaml:"outlierDetection,omitempty"`
	HealthCheck      *policy.HealthCheck      `yaml:"healthCheck,omitempty"`
	PanicThreshold   *float64                 `yaml:"panicThreshold,omitempty"`
	LoadBalancing    policy.LoadBalancing     `yaml:"loadBalancing,omitempty"`
	HashBy           []string                 `yaml:"hashBy,omitempty"`
	Protocol         policy.Protocol          `yaml:"protocol,omitempty"`
	TLS              *policy.UpstreamTLS      `yaml:"tls,omitempty"`

	Zones    map[string]string   `yaml:"zones,omitempty"` // of endpoints that are in one
	Balances *policy.ZoneBalance `yaml:"balances,omitempty"`
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
	// Home is the share of its users, in percent, that is served as if it were not moved:
	// those whose [group.Place] is below. 0: nobody.
	Home uint32 `yaml:"home,omitempty"`
}

// Shed is how many requests a second an edge lets a group make. Rules that have a rate
// limit of their own keep theirs.
type Shed struct {
	Group    group.ID `yaml:"group"`
	Requests uint32   `yaml:"requests"`
}

// Groups is what was decided of groups.
type Groups struct {
	Pools map[group.ID]string // where they were moved to
	Home  map[group.ID]uint32 // of those in Pools: see [Move.Home]
	Sheds map[group.ID]uint32 // see [Shed.Requests]
}

// Groups is what p was built of.
func (p Plan) Groups() Groups {
	out := Groups{Pools: map[group.ID]string{}, Home: map[group.ID]uint32{}, Sheds: map[group.ID]uint32{}}
	for _, m := range p.Moves {
		out.Pools[m.Group] = m.Pool
		if m.Home > 0 {
			out.Home[m.Group] = m.Home
		}
	}
	for _, s := range p.Sheds {
		out.Sheds[s.Group] = s.Requests
	}
	return out
}

// Draining are the instances that drain in any service, sorted.
func (p Plan) Draining() []string {
	var out []string
	for _, s := range p.Services {
		for _, pool := range s.Pools {
			out = append(out, pool.Draining...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
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

		Draining: p.Draining(),
	}
	for _, c := range p.Cohorts {
		out.Cohorts[c.Color.String()] = c.Pool
	}
	for _, m := range p.Moves {
		out.Groups[m.Group] = m.Pool
		if m.Home > 0 {
			if out.Home == nil {
				out.Home = map[group.ID]uint32{}
			}
			out.Home[m.Group] = m.Home
		}
	}
	return out
}

package color

import "github.com/tracegate/tracegate/mesh/group"

// Policy is what the edge filter must know to color a request. The control plane
// takes it from the operator's policy file and hands it to the filter as JSON by
// ECDS. [Compile] checks it; the zero Policy is valid and colors everything baseline.
type Policy struct {
	// Env and Tenant are given to requests for which no rule says otherwise.
	Env    string `json:"env,omitempty" yaml:"env,omitempty"`
	Tenant string `json:"tenant,omitempty" yaml:"tenant,omitempty"`
	// TrustedPeers are CIDRs whose traceparent and baggage are kept as they are.
	TrustedPeers []string `json:"trustedPeers,omitempty" yaml:"trustedPeers,omitempty"`
	// Cohorts are tried in order; the first that matches gives the color.
	Cohorts []Cohort `json:"cohorts,omitempty" yaml:"cohorts,omitempty"`
	// Tenants are tried in order; the first that yields a name gives the tenant,
	// unless the cohort set one.
	Tenants []Tenant `json:"tenants,omitempty" yaml:"tenants,omitempty"`
	// Releasing are groups that are released step by step: their users are told apart
	// ([group.Place]). The control plane writes it, operators do not.
	Releasing []group.ID `json:"releasing,omitempty" yaml:"-"`
}

// Cohort is a named set of requests that share a color.
type Cohort struct {
	Name   string `json:"name" yaml:"name"`
	Color  string `json:"color,omitempty" yaml:"color,omitempty"` // eight hex digits; group.ColorOf(Name) where empty
	Env    string `json:"env,omitempty" yaml:"env,omitempty"`
	Tenant string `json:"tenant,omitempty" yaml:"tenant,omitempty"`
	Match  Match  `json:"match" yaml:"match"`
}

// Tenant yields a tenant name: Name where Match matches, or the value of Claim or
// Header where one of those is set.
type Tenant struct {
	Name   string `json:"name,omitempty" yaml:"name,omitempty"`
	Match  *Match `json:"match,omitempty" yaml:"match,omitempty"`
	Claim  string `json:"claim,omitempty" yaml:"claim,omitempty"`
	Header string `json:"header,omitempty" yaml:"header,omitempty"`
}

// Match is one condition; exactly one field is set. The zero Match matches nothing.
type Match struct {
	Any     []Match  `json:"any,omitempty" yaml:"any,omitempty"`
	All     []Match  `json:"all,omitempty" yaml:"all,omitempty"`
	Not     *Match   `json:"not,omitempty" yaml:"not,omitempty"`
	Host    string   `json:"host,omitempty" yaml:"host,omitempty"` // exact, "*.suffix" or "prefix.*"; port ignored
	Path    string   `json:"path,omitempty" yaml:"path,omitempty"` // prefix
	Header  *Value   `json:"header,omitempty" yaml:"header,omitempty"`
	Cookie  *Value   `json:"cookie,omitempty" yaml:"cookie,omitempty"`
	Claim   *Value   `json:"claim,omitempty" yaml:"claim,omitempty"` // of the verified JWT
	Percent *Percent `json:"percent,omitempty" yaml:"percent,omitempty"`
}

// Value tests a named value: Exact, Prefix or, with neither, presence.
type Value struct {
	Name   string `json:"name" yaml:"name"`
	Exact  string `json:"exact,omitempty" yaml:"exact,omitempty"`
	Prefix string `json:"prefix,omitempty" yaml:"prefix,omitempty"`
}

// Percent matches a sticky share of users: growing Of never takes a user out.
// A request without a key never matches, so that one user cannot flip.
type Percent struct {
	Of   float64 `json:"of" yaml:"of"`                         // 0 to 100, in steps of 0.01
	By   string  `json:"by,omitempty" yaml:"by,omitempty"`     // "user" (claim sub, the default), "claim:NAME", "cookie:NAME", "header:NAME"
	Salt string  `json:"salt,omitempty" yaml:"salt,omitempty"` // the cohort's name where empty
}

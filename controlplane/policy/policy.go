// Package policy is what an operator wishes: which requests form which groups,
// which pools exist, and when a group may be moved. It turns policy.yaml and
// endpoints.yaml into checked values, whole or not at all; every error names the
// key's path and line.
//
// It is pure: it reads bytes, not files (controlplane/source does), and knows
// nothing of Envoy. controlplane/plan turns its values into a desired state.
package policy

import (
	"cmp"
	_ "embed"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/wasm/color"
)

// Default is the commented policy that a first start writes for the operator.
//
//go:embed default.yaml
var Default []byte

// Failure says what an edge does with a request that its filter could not color.
type Failure string

// FailOpen serves the request from baseline; FailClosed answers 503.
const (
	FailOpen   Failure = "open"
	FailClosed Failure = "closed"
)

// Policy is the whole of policy.yaml.
type Policy struct {
	Color       color.Policy      `yaml:"color"`
	Failure     Failure           `yaml:"failure"`
	Services    []Service         `yaml:"services"`
	Limits      []Limit           `yaml:"limits"`
	JWT         []JWTProvider     `yaml:"jwt"`
	CohortPools map[string]string `yaml:"cohortPools"` // cohort name -> pool name
	Decide      decide.Policy     `yaml:"decide"`
	TLS         TLS               `yaml:"tls"`
}

// Service is one upstream application. Services are matched in order.
type Service struct {
	Name      string  `yaml:"name"`
	Instances string  `yaml:"instances,omitempty"` // another service whose instances are these pools', to speak another protocol to them
	Pools     []Pool  `yaml:"pools"`               // baseline is required
	Rules     []Rule  `yaml:"rules"`               // matched in order, before the routes of all services
	Routes    []Route `yaml:"routes"`              // matched in order
}

// Route is one class of requests to a service. Exactly one of Path and Prefix is set.
type Route struct {
	Name      string        `yaml:"name"`   // http.route in telemetry; the path where empty
	Path      string        `yaml:"path"`   // exact
	Prefix    string        `yaml:"prefix"` // on path segments: /v1 takes /v1 and /v1/x, not /v1x
	WebSocket bool          `yaml:"websocket"`
	GRPC      bool          `yaml:"grpc,omitempty"` // calls may stream: a client's grpc-timeout ends them, at most Timeout where the policy has one
	Timeout   time.Duration `yaml:"timeout"`        // whole response, not for WebSockets; 15s where zero
}

// DefaultTimeout is a route's timeout where the policy names none.
const DefaultTimeout = 15 * time.Second

// MaxSize bounds a policy or endpoints document, in bytes; 10,000 rules fit.
const MaxSize = 4 << 20

// Parse reads a policy document. Its error is an [*Error].
func Parse(data []byte) (Policy, error) {
	p, _, err := parse(data, version{})
	return p, err
}

// Reader reads one version of a document after the other. It takes services and rules
// that stand in the new one as they stood in the last from there, with their memory, and
// neither parses nor decodes them again; what it returns is what [Parse] would. The zero
// value has read nothing. It is safe for concurrent use: who has checked a document and
// then reads it where it was put pays once.
type Reader struct {
	mu    sync.Mutex
	known version
}

// Parse reads the next version. An error leaves the last good one in mind.
func (r *Reader) Parse(data []byte) (Policy, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known.text != "" && r.known.text == string(data) {
		return r.known.policy, nil
	}
	p, known, err := parse(data, r.known)
	if err == nil {
		r.known = known
	}
	return p, err
}

func parse(data []byte, known version) (Policy, version, error) {
	p := Policy{Failure: FailOpen, Decide: decide.DefaultPolicy()}
	if len(data) > MaxSize {
		var d document
		d.fail("", 0, "document has %d bytes, more than %d", len(data), MaxSize)
		return Policy{}, version{}, d.Err()
	}
	d := newDocument(data, known)
	d.Parse(d.outline.text, &p)
	whole := !d.outline.shorter || d.Good() && d.holds && d.outline.complete(&p)
	if whole && d.Good() {
		d.checkPolicy(&p)
	}
	switch err := d.Err(); {
	case d.outline.shorter && (err != nil || !whole):
		return parse(data, version{}) // for the lines of what is wrong
	case err != nil:
		return Policy{}, version{}, err
	}
	return p, d.learned(data, p), nil
}

// name is what services and pools may be called: it becomes part of cluster names
// and metric labels.
var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

func (d *document) checkPolicy(p *Policy) {
	if p.Failure != FailOpen && p.Failure != FailClosed {
		d.invalid("failure", "%q is neither %q nor %q", clip(string(p.Failure)), FailOpen, FailClosed)
	}
	d.checkColor(p.Color)
	d.checkServices(p)
	d.checkLimits(p)
	d.checkJWT(p)
	d.checkCohortPools(p)
	for _, e := range p.Decide.Validate() {
		d.invalid("decide."+e.Field, "%s", e.Err)
	}
	d.checkIgnored(p)
	d.checkTLS(p.TLS)
}

// checkIgnored finds routes that would be ignored, if they were there.
func (d *document) checkIgnored(p *Policy) {
	if len(p.Decide.IgnoreRoutes) == 0 {
		return
	}
	routes := map[string]bool{}
	for _, s := range p.Services {
		for _, r := range s.Routes {
			routes[cmp.Or(r.Name, r.Path, r.Prefix)] = true
		}
		for _, r := range s.Rules {
			routes[r.Name] = true
		}
	}
	for i, name := range p.Decide.IgnoreRoutes {
		if !routes[name] {
			d.invalid(index("decide.ignoreRoutes", i), "no service has a route or rule named %q", clip(name))
		}
	}
}

// index gives "path[i]".
func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func (d *document) checkName(path, got string) {
	if !name.MatchString(got) {
		d.invalid(path, "%q is not 1 to 40 lower-case letters, digits and inner hyphens", clip(got))
	}
}

func (d *document) checkCohortPools(p *Policy) {
	cohorts, pools := map[string]bool{}, map[string]bool{}
	for _, c := range p.Color.Cohorts {
		cohorts[c.Name] = true
	}
	for _, s := range p.Services {
		for _, pool := range s.Pools {
			pools[pool.Name] = true
		}
	}
	for cohort, pool := range p.CohortPools {
		path := join("cohortPools", cohort)
		if !cohorts[cohort] {
			d.invalid(path, "no cohort of this name in color.cohorts")
		}
		if !pools[pool] {
			d.invalid(path, "no service has a pool %q", clip(pool))
		}
	}
}

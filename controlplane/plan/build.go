package plan

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/observability/semconv"
)

// ErrNothingToServe is an input without any endpoint. A plan of it would empty
// the edge, so there is none.
var ErrNothingToServe = errors.New("no endpoint in any baseline pool")

// Build joins its inputs. Moves to a pool that no service has are left out: the
// policy took that pool away, and the group is where its cohort is. Build has no
// clock: pins that have ended are gone from [policy.Policy.At].
func Build(p policy.Policy, e policy.Endpoints, of Groups, edge Edge) (Plan, error) {
	if err := edge.Validate(); err != nil {
		return Plan{}, err
	}
	color := p.Color
	color.Releasing = slices.Sorted(maps.Keys(of.Home))
	filter, err := json.Marshal(color)
	if err != nil {
		return Plan{}, fmt.Errorf("encode filter configuration: %w", err)
	}
	out := Plan{
		Edge:       edge,
		FailClosed: p.Failure == policy.FailClosed,
		Filter:     string(filter),
		Services:   services(p, e),
		Limits:     p.Limits,
		JWT:        providers(p.JWT, edge.Keys),
		Cohorts:    cohorts(p),
		TLS:        encrypted(p.TLS, edge),
	}
	out.Secrets = out.secrets()
	if len(p.Limits) > 0 && edge.RateLimit == "" {
		return Plan{}, errors.New("limits: no rate limit service is configured (ratelimit.listen)")
	}
	if !out.canServe() {
		return Plan{}, ErrNothingToServe
	}
	for _, id := range slices.Sorted(maps.Keys(of.Pools)) {
		if id.Valid() && out.hasPool(of.Pools[id]) {
			out.Moves = append(out.Moves, Move{Group: id, Pool: of.Pools[id], Home: of.Home[id]})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(of.Sheds)) {
		if id.Valid() && of.Sheds[id] > 0 {
			out.Sheds = append(out.Sheds, Shed{Group: id, Requests: of.Sheds[id]})
		}
	}
	return out, nil
}

func services(p policy.Policy, e policy.Endpoints) []Service {
	out, zoneOf := make([]Service, 0, len(p.Services)), e.ZoneOf()
	for _, s := range p.Services {
		svc := Service{Name: s.Name, Pools: make([]Pool, 0, len(s.Pools)), Routes: s.Routes, Rules: s.Rules}
		for _, pool := range s.Pools {
			instances := cmp.Or(s.Instances, s.Name)
			own, backup := sorted(e.Services[instances][pool.Name]), sorted(e.Backup[instances][pool.Name])
			svc.Pools = append(svc.Pools, Pool{
				Name: pool.Name, Endpoints: own, Backup: backup, Draining: draining(own, e.Draining[instances][pool.Name]), CircuitBreakers: pool.CircuitBreakers,
				OutlierDetection: pool.OutlierDetection, HealthCheck: pool.HealthCheck, PanicThreshold: pool.PanicThreshold,
				LoadBalancing: pool.LoadBalancing, HashBy: pool.HashBy, Protocol: pool.Protocol, TLS: pool.TLS, Zones: zones(slices.Concat(own, backup), zoneOf), Balances: pool.Zones,
			})
		}
		out = append(out, svc)
	}
	return out
}

// providers have the keys that are known of them. One whose keys were never to be had
// verifies nothing, and changes nothing for the others.
func providers(all []policy.JWTProvider, keys map[string]string) []policy.JWTProvider {
	out := slices.Clone(all)
	for i, j := range out {
		if j.JWKSURL != "" {
			out[i].JWKS = keys[j.JWKSURL]
		}
	}
	return out
}

// sorted copies only where it must.
func sorted(endpoints []string) []string {
	if slices.IsSorted(endpoints) {
		return endpoints
	}
	return slices.Sorted(slices.Values(endpoints))
}

// draining are those endpoints that are among others.
func draining(endpoints, all []string) []string {
	var out []string
	for _, e := range endpoints {
		if slices.Contains(all, e) {
			out = append(out, e)
		}
	}
	return out
}

func zones(endpoints []string, zoneOf func(string) string) map[string]string {
	if zoneOf == nil {
		return nil
	}
	out := map[string]string{}
	for _, e := range endpoints {
		if z := zoneOf(e); z != "" {
			out[e] = z
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// cohorts keeps the policy's order and leaves out those that baseline serves anyway.
func cohorts(p policy.Policy) []Cohort {
	var out []Cohort
	for _, c := range p.Color.Cohorts {
		if pool := p.CohortPools[c.Name]; pool != "" && pool != semconv.PoolBaseline {
			out = append(out, Cohort{Name: c.Name, Color: policy.ColorOf(c), Pool: pool})
		}
	}
	return out
}

func (p Plan) hasPool(pool string) bool {
	return slices.ContainsFunc(p.Services, func(s Service) bool { return s.Has(pool) })
}

func (p Plan) canServe() bool {
	for _, s := range p.Services {
		for _, pool := range s.Pools {
			if pool.Name == semconv.PoolBaseline && len(pool.Endpoints)+len(pool.Backup) > 0 {
				return true
			}
		}
	}
	return false
}

// Validate names the key that cannot be used.
func (e Edge) Validate() error {
	for key, v := range map[string]string{"listen": e.Listen, "observe": e.Observe} {
		if ap, err := netip.ParseAddrPort(v); err != nil || ap.Port() == 0 {
			return fmt.Errorf("edge %s: %q is not an IP address and port", key, v)
		}
	}
	if err := e.TLS.validate(e.Listen); err != nil {
		return err
	}
	if ap, err := netip.ParseAddrPort(e.RateLimit); e.RateLimit != "" && (err != nil || ap.Port() == 0) {
		return fmt.Errorf("edge rateLimit: %q is not an IP address and port", e.RateLimit)
	}
	if e.TrustedHops > 32 {
		return fmt.Errorf("edge trustedHops: %d is more than 32", e.TrustedHops)
	}
	if e.Identity != "" && !path.IsAbs(e.Identity) {
		return fmt.Errorf("edge identity: %q is not absolute: Envoy resolves it, not this process", e.Identity)
	}
	if e.JWKS != "" && !json.Valid([]byte(e.JWKS)) {
		return errors.New("edge jwks: not JSON")
	}
	if e.Wasm.Path == "" {
		return nil
	}
	if !path.IsAbs(e.Wasm.Path) && path.Base(e.Wasm.Path) != e.Wasm.Path {
		return fmt.Errorf("edge wasm path: %q is neither a name of a file nor absolute: Envoy resolves it, not this process", e.Wasm.Path)
	}
	if b, err := hex.DecodeString(e.Wasm.SHA256); err != nil || len(b) != 32 {
		return fmt.Errorf("edge wasm sha256: %q is not 64 hex digits", e.Wasm.SHA256)
	}
	return nil
}

// Package blame finds what an operator wrote behind an Envoy resource: which line of
// which file an edge's refusal is about.
//
// Envoy refuses resources, and says little about where in one it stumbled. So three
// things narrow it down, each only where it leaves something: what the resource is made
// from (a virtual host: the rules that take requests for its host), which of that is new
// or changed since the last good policy, and what Envoy's reason quotes. (A mark in
// each resource, such as its metadata, lost: it would change the bytes of every
// resource when a line is inserted above, and so send all of them.)
//
// It is pure.
package blame

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/xds"
)

// Documents are what a plan was made of.
type Documents struct {
	PolicyFile, EndpointsFile string
	RawPolicy, RawEndpoints   []byte
	Policy                    policy.Policy
	Good                      *policy.Policy // the last that edges took; nil: none
}

// Rule names a rule of a policy.
type Rule struct {
	Service string `json:"service"` // that it stands under
	Name    string `json:"name"`
}

// Rules are the rules that a refusal of routes is likely about; none where it may be
// about something else.
func Rules(d Documents, t xds.Type, resource, reason string) []Rule {
	var out []Rule
	for _, o := range likely(d, t, resource, reason) {
		if o.rule.Name == "" || !d.changed(o) {
			return nil
		}
		out = append(out, o.rule)
	}
	return out
}

// maxPlaces bounds what one refusal shows.
const maxPlaces = 5

// Places are where a refused resource comes from, the likeliest only. There are none for
// what no document says, such as the address an edge listens on.
func Places(d Documents, t xds.Type, resource, reason string) []policy.Place {
	found := likely(d, t, resource, reason)
	var lines, endpointLines map[string]int
	var out []policy.Place
	for _, o := range found[:min(len(found), maxPlaces)] {
		p := policy.Place{File: d.PolicyFile, Path: o.path, What: o.what}
		if o.endpoints {
			if endpointLines == nil {
				endpointLines = policy.Lines(d.RawEndpoints)
			}
			p.File, p.Line = d.EndpointsFile, nearest(endpointLines, o.path)
		} else {
			if lines == nil {
				lines = policy.Lines(d.RawPolicy)
			}
			p.Line = nearest(lines, o.path)
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b policy.Place) int { return cmp.Compare(a.Line, b.Line) })
	return out
}

func likely(d Documents, t xds.Type, resource, reason string) []origin {
	found := origins(d.Policy, t, resource)
	found = narrow(found, d.changed)
	found = narrow(found, func(o origin) bool { return quotes(reason, o.value) })
	if t == xds.VirtualHosts { // what names no host was taken with the route configuration, which goes first
		found = narrow(found, func(o origin) bool { return o.hosts })
	}
	return found
}

// nearest is the line of a key, or of the nearest above it that the document has.
func nearest(lines map[string]int, path string) int {
	for path != "" {
		if line, ok := lines[path]; ok {
			return line
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return 0
}

func narrow(all []origin, keep func(origin) bool) []origin {
	var out []origin
	for _, o := range all {
		if keep(o) {
			out = append(out, o)
		}
	}
	if len(out) == 0 {
		return all
	}
	return out
}

// origin is a part of a document that a resource is made from.
type origin struct {
	path, what string
	endpoints  bool                    // of the endpoints document
	hosts      bool                    // a rule that names hosts
	rule       Rule                    // of a rule
	value      any                     // what stands there
	of         func(policy.Policy) any // what stands in another policy at the same name; nil where that is not asked
}

func (d Documents) changed(o origin) bool {
	return o.of != nil && (d.Good == nil || !reflect.DeepEqual(o.value, o.of(*d.Good)))
}

func origins(p policy.Policy, t xds.Type, resource string) []origin {
	switch t {
	case xds.Clusters:
		return pools(p, resource, false)
	case xds.Endpoints:
		return pools(p, resource, true)
	case xds.Extensions:
		if resource == xds.FilterName {
			return []origin{{path: "color", what: "cohorts and tenants", value: p.Color, of: func(p policy.Policy) any { return p.Color }}}
		}
	case xds.Routes, xds.VirtualHosts:
		return routes(p, t, resource)
	}
	return nil
}

func pools(p policy.Policy, cluster string, endpoints bool) []origin {
	service, rest, _ := strings.Cut(cluster, ".")
	pool, _, _ := strings.Cut(rest, ".")
	if endpoints {
		return []origin{{path: "services." + service + "." + pool, what: "endpoints of pool " + pool + " of " + service, endpoints: true}}
	}
	for i, s := range p.Services {
		for j, q := range s.Pools {
			if s.Name == service && q.Name == pool {
				return []origin{{path: fmt.Sprintf("services[%d].pools[%d]", i, j), what: "pool " + pool + " of " + service, value: q}}
			}
		}
	}
	return nil
}

// routes are the rules that a virtual host has, and the services' own routes.
func routes(p policy.Policy, t xds.Type, resource string) []origin {
	var out []origin
	for i, s := range p.Services {
		for j, r := range s.Rules {
			if xds.Has(t, resource, r) {
				out = append(out, origin{
					path: fmt.Sprintf("services[%d].rules[%d]", i, j), what: "rule " + r.Name + " of " + s.Name,
					value: r, of: func(p policy.Policy) any { return ruleOf(p, s.Name, r.Name) },
					rule:  Rule{s.Name, r.Name},
					hosts: slices.ContainsFunc(r.Match, func(m policy.Match) bool { return len(m.Hosts) > 0 }),
				})
			}
		}
	}
	for i, s := range p.Services {
		out = append(out, origin{
			path: fmt.Sprintf("services[%d].routes", i), what: "routes of " + s.Name,
			value: s.Routes, of: func(p policy.Policy) any { return routesOf(p, s.Name) },
		})
	}
	return out
}

func ruleOf(p policy.Policy, service, rule string) any {
	for _, s := range p.Services {
		for _, r := range s.Rules {
			if s.Name == service && r.Name == rule {
				return r
			}
		}
	}
	return nil
}

func routesOf(p policy.Policy, service string) any {
	for _, s := range p.Services {
		if s.Name == service {
			return s.Routes
		}
	}
	return nil
}

// quotes says whether a reason has a text of the value in it that is long enough not
// to be there by chance.
func quotes(reason string, value any) bool {
	const least = 5
	return anyText(reflect.ValueOf(value), func(s string) bool { return len(s) >= least && strings.Contains(reason, s) })
}

func anyText(v reflect.Value, ok func(string) bool) bool {
	switch v.Kind() {
	case reflect.String:
		return ok(v.String())
	case reflect.Pointer, reflect.Interface:
		return !v.IsNil() && anyText(v.Elem(), ok)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && anyText(v.Field(i), ok) {
				return true
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if anyText(v.Index(i), ok) {
				return true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if anyText(it.Key(), ok) || anyText(it.Value(), ok) {
				return true
			}
		}
	}
	return false
}

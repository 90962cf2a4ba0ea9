package policy

import (
	"math"
	"strings"
	"time"

	"github.com/tracegate/tracegate/observability/semconv"
)

const (
	maxServices = 512
	maxPools    = 16
	maxRoutes   = 64
)

func (d *document) checkServices(p *Policy) {
	switch n := len(p.Services); {
	case n == 0:
		d.invalid("services", "no service: an edge without one would serve nothing")
	case n > maxServices:
		d.invalid("services", "%d services, more than %d", n, maxServices)
		return
	}
	names := map[string]bool{}
	before := taken{map[string]claim{}, map[string]claim{}} // of all services so far
	for i, s := range p.Services {
		path := index("services", i)
		d.checkName(path+".name", s.Name)
		if names[s.Name] {
			d.invalid(path+".name", "service %q appears twice", s.Name)
		}
		names[s.Name] = true
		if _, ok := d.isKnown(i); !ok {
			d.checkPools(path+".pools", s.Pools)
			d.checkRoutes(path+".routes", s.Routes)
		}
		d.checkReached(path+".routes", s.Routes, before)
	}
	own := map[string]bool{}
	for _, s := range p.Services {
		own[s.Name] = s.Instances == ""
	}
	for i, s := range p.Services {
		if s.Instances != "" && !own[s.Instances] {
			d.invalid(index("services", i)+".instances", "%q is no other service that has instances of its own", clip(s.Instances))
		}
	}
	d.checkRules(p)
}

func (d *document) checkPools(path string, pools []Pool) {
	if len(pools) > maxPools {
		d.invalid(path, "%d pools, more than %d", len(pools), maxPools)
		return
	}
	seen := map[string]bool{}
	for i, pool := range pools {
		d.checkName(index(path, i)+".name", pool.Name)
		if seen[pool.Name] {
			d.invalid(index(path, i)+".name", "pool %q appears twice", pool.Name)
		}
		seen[pool.Name] = true
		d.checkPoolSettings(index(path, i), pool)
	}
	if !seen[semconv.PoolBaseline] {
		d.invalid(path, "no pool %q: every fallback needs it", semconv.PoolBaseline)
	}
}

func (d *document) checkRoutes(path string, routes []Route) {
	switch n := len(routes); {
	case n == 0:
		d.invalid(path, "no route")
	case n > maxRoutes:
		d.invalid(path, "%d routes, more than %d", n, maxRoutes)
		return
	}
	for i := range routes {
		d.checkRoute(index(path, i), &routes[i])
	}
}

// checkReached finds routes that others before take all requests from.
func (d *document) checkReached(path string, routes []Route, before taken) {
	for i, r := range routes[:min(len(routes), maxRoutes)] {
		if by, ok := before.by(r); ok {
			d.invalid(index(path, i), "never reached: %q above takes its requests", by)
		}
		before.add(r)
	}
}

// taken is what routes take, in the order the edge tries them.
type taken struct{ paths, prefixes map[string]claim }

// claim is the first route that takes something.
type claim struct {
	order int
	name  string
}

func (t taken) add(r Route) {
	of, key := t.prefixes, r.Prefix
	if key == "" {
		of, key = t.paths, r.Path
	}
	if _, ok := of[key]; !ok {
		of[key] = claim{len(t.paths) + len(t.prefixes), r.Name}
	}
}

// by is the first route that takes every request of r.
func (t taken) by(r Route) (name string, ok bool) {
	first := claim{order: math.MaxInt}
	look := func(of map[string]claim, key string) {
		if p, ok := of[key]; ok && p.order < first.order {
			first = p
		}
	}
	target := r.Path + r.Prefix
	look(t.paths, r.Path)
	look(t.prefixes, "/")
	look(t.prefixes, target)
	for i := range len(target) {
		if target[i] == '/' {
			look(t.prefixes, target[:i])
			look(t.prefixes, target[:i+1])
		}
	}
	return first.name, first.order < math.MaxInt
}

// checkRoute also fills in what the document left to defaults.
func (d *document) checkRoute(at string, r *Route) {
	key, target := ".path", r.Path
	switch {
	case r.Path == "" && r.Prefix == "":
		d.invalid(at, "neither path nor prefix")
	case r.Path != "" && r.Prefix != "":
		d.invalid(at, "both path and prefix")
	case r.Prefix != "":
		key, target = ".prefix", r.Prefix
	}
	if target != "" {
		d.checkTarget(at+key, target)
	}
	if r.Name == "" {
		r.Name = target
	}
	if len(r.Name) > 64 || strings.ContainsAny(r.Name, "\x00\r\n") {
		d.invalid(at+".name", "longer than 64 bytes or not one line")
	}
	if r.WebSocket && r.GRPC {
		d.invalid(at+".grpc", "a WebSocket is no gRPC call")
	}
	if r.Timeout == 0 && !r.GRPC {
		r.Timeout = DefaultTimeout
	}
	if r.Timeout < 0 || r.Timeout > time.Hour {
		d.invalid(at+".timeout", "%v is not between 0 and 1h", r.Timeout)
	}
}

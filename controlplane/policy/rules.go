package policy

import (
	"math"
	"slices"
	"time"

	"github.com/tracegate/tracegate/observability/semconv"
)

const (
	maxRules    = 10_000 // of all services
	maxCanaries = 100    // of all services: each becomes a route for each moved group and cohort
	maxMatches  = 64     // of one rule
	// maxRuleRoutes bounds what rules become: a route for each match and host.
	maxRuleRoutes = 20_000
	// maxDirectBody is Envoy's own bound.
	maxDirectBody = 4096
	// maxBufferedBytes bounds what one request may make an edge hold.
	maxBufferedBytes = 16 << 20
)

func (d *document) checkRules(p *Policy) {
	rules, canaries, routes := 0, 0, 0
	for _, s := range p.Services {
		rules += len(s.Rules)
		for i := range s.Rules {
			r := &s.Rules[i]
			if r.Canary != nil {
				canaries++
			}
			for _, m := range r.Match {
				routes += max(1, len(m.Hosts))
			}
		}
	}
	switch {
	case rules > maxRules:
		d.invalid("services", "%d rules, more than %d", rules, maxRules)
		return
	case canaries > maxCanaries:
		d.invalid("services", "%d rules with a canary, more than %d", canaries, maxCanaries)
		return
	case routes > maxRuleRoutes:
		d.invalid("services", "rules match in %d ways (matches times hosts), more than %d", routes, maxRuleRoutes)
		return
	}
	taken := make(map[string]string, routes) // match -> name of the rule that has it
	d.keys = make([][]string, len(p.Services))
	for i := range p.Services {
		at := index("services", i) + ".rules"
		if k, ok := d.isKnown(i); ok {
			d.keys[i] = k.keys
		} else {
			d.checkServiceRules(at, &p.Services[i], p)
			for j, r := range p.Services[i].Rules {
				d.keys[i] = append(d.keys[i], d.keysOf(i, j, r.Match)...)
			}
		}
		d.checkTaken(at, p.Services[i].Rules, d.keys[i], taken)
	}
}

func (d *document) checkServiceRules(path string, s *Service, p *Policy) {
	names := map[string]bool{}
	for j := range s.Rules {
		r, at := &s.Rules[j], index(path, j)
		if r.Name == "" || len(r.Name) > 64 || !printable(r.Name) {
			d.invalid(at+".name", "%q is not 1 to 64 printable characters", clip(r.Name))
		}
		if names[r.Name] {
			d.invalid(at+".name", "rule %q appears twice", clip(r.Name))
		}
		names[r.Name] = true
		if r.Service == "" {
			r.Service = s.Name
		}
		if n := len(r.Match); n == 0 || n > maxMatches {
			d.invalid(at+".match", "%d matches, not 1 to %d", n, maxMatches)
		} else {
			for i := range r.Match {
				d.checkMatch(index(at+".match", i), &r.Match[i], p.Color.Cohorts)
			}
		}
		d.checkRule(at, r, p)
	}
}

// checkTaken finds matches that rules before take all requests from. keys are those
// of all matches.
func (d *document) checkTaken(path string, rules []Rule, keys []string, taken map[string]string) {
	n := 0
	for j := range rules {
		for i := range rules[j].Match {
			key := keys[n]
			n++
			if by, ok := taken[key]; ok {
				d.invalid(index(index(path, j)+".match", i), "never reached: rule %q above takes its requests", clip(by))
			}
			taken[key] = rules[j].Name
		}
	}
}

// checkRule also fills in what the document left to defaults.
func (d *document) checkRule(at string, r *Rule, p *Policy) {
	i := slices.IndexFunc(p.Services, func(s Service) bool { return s.Name == r.Service })
	if i < 0 {
		d.invalid(at+".service", "no service %q", clip(r.Service))
		return
	}
	d.checkPlaces(at, r, p.Services[i])
	d.checkAnswer(at, r)
	d.checkRewrite(at, r)
	if r.WebSocket && r.GRPC {
		d.invalid(at+".grpc", "a WebSocket is no gRPC call")
	}
	if r.Timeout == 0 && !r.GRPC {
		r.Timeout = DefaultTimeout
	}
	d.duration(at+".timeout", r.Timeout, time.Millisecond, time.Hour)
	d.duration(at+".idleTimeout", r.IdleTimeout, time.Millisecond, 24*time.Hour)
	d.checkRetries(at+".retries", r.Retries)
	d.checkHeaderChanges(at+".requestHeaders", r.RequestHeaders)
	d.checkHeaderChanges(at+".responseHeaders", r.ResponseHeaders)
	d.checkCORS(at+".cors", r.CORS)
	d.checkRateLimit(at+".rateLimit", r)
	d.checkFault(at+".fault", r.Fault)
	d.checkAddressRule(at+".addresses", r.Addresses)
	if r.MaxRequestBytes > maxBufferedBytes {
		d.invalid(at+".maxRequestBytes", "%d is more than %d", r.MaxRequestBytes, maxBufferedBytes)
	}
	if r.MaxRequestBytes > 0 && (r.WebSocket || r.GRPC) {
		d.invalid(at+".maxRequestBytes", "cannot be held for WebSockets and gRPC calls: the edge would wait for their end")
	}
}

// checkPlaces is about which pools get the requests.
func (d *document) checkPlaces(at string, r *Rule, s Service) {
	has := func(at, pool string) {
		if !slices.ContainsFunc(s.Pools, func(p Pool) bool { return p.Name == pool }) {
			d.invalid(at, "service %q has no pool %q", s.Name, clip(pool))
		}
	}
	if r.Pool != "" {
		has(at+".pool", r.Pool)
	}
	if r.Pool == "" && !r.Until.IsZero() {
		d.invalid(at+".until", "says when a pin ends, and pool names none")
	}
	if m := r.Mirror; m != nil {
		has(at+".mirror.pool", m.Pool)
		d.percent(at+".mirror.percent", m.Percent)
	}
	c := r.Canary
	if c == nil {
		return
	}
	at += ".canary"
	switch {
	case r.Pool != "":
		d.invalid(at, "the rule also pins a pool")
	case (c.Cookie == "") == (c.Header == ""):
		d.invalid(at, "wants cookie or header, to know a user by")
	case c.Cookie != "":
		d.checkCookieName(at+".cookie", c.Cookie)
	case c.Header != "":
		d.checkHeaderName(at+".header", c.Header)
	}
	if n := len(c.Pools); n < 1 || n > 2 {
		d.invalid(at+".pools", "%d pools, not 1 or 2: with more, one that grows would move users of another", n)
		return
	}
	sum, seen := 0.0, map[string]bool{semconv.PoolBaseline: true}
	for i, p := range c.Pools {
		at := index(at+".pools", i)
		has(at+".pool", p.Pool)
		if seen[p.Pool] {
			d.invalid(at+".pool", "%q appears twice, or is baseline, which gets the rest", clip(p.Pool))
		}
		seen[p.Pool] = true
		d.percent(at+".percent", p.Percent)
		if steps := p.Percent * 100; math.Abs(steps-math.Round(steps)) > 1e-6 {
			d.invalid(at+".percent", "%v is not in steps of 0.01", p.Percent)
		}
		sum += p.Percent
	}
	if sum > 100 {
		d.invalid(at+".pools", "together %v percent, more than 100", sum)
	}
}

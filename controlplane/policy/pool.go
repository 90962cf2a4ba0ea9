package policy

import (
	"slices"
	"strings"
	"time"
)

// Pool is a set of instances of its service. What is not set keeps the edge's
// default, which controlplane/xds documents with its reasons.
type Pool struct {
	Name             string            `yaml:"name"`
	CircuitBreakers  *CircuitBreakers  `yaml:"circuitBreakers"`
	OutlierDetection *OutlierDetection `yaml:"outlierDetection"`
	HealthCheck      *HealthCheck      `yaml:"healthCheck"`
	PanicThreshold   *float64          `yaml:"panicThreshold"` // percent of healthy instances below which all are tried; 0 for never
	LoadBalancing    LoadBalancing     `yaml:"loadBalancing,omitempty"`
	HashBy           []string          `yaml:"hashBy,omitempty"` // of ringHash and maglev: user, address, header:NAME or cookie:NAME; the first that a request has
	Protocol         Protocol          `yaml:"protocol,omitempty"`
	TLS              *UpstreamTLS      `yaml:"tls,omitempty"`   // nil: the edge speaks to instances unencrypted
	Zones            *ZoneBalance      `yaml:"zones,omitempty"` // nil: instances are alike wherever they are
}

// LoadBalancing says which of its pool's healthy instances gets a request.
type LoadBalancing string

// LeastRequest takes the one with fewer open requests of two that are drawn, so that a slow
// one gets less; RoundRobin takes one after the other, Random draws one. RingHash and Maglev
// take the same one for the same value of [Pool.HashBy], on every edge, and draw one where a
// request has none: when an instance comes or goes RingHash moves only its share of values,
// Maglev a few more and spreads them more evenly.
const (
	LeastRequest LoadBalancing = "leastRequest" // where a pool says nothing
	RoundRobin   LoadBalancing = "roundRobin"
	Random       LoadBalancing = "random"
	RingHash     LoadBalancing = "ringHash"
	Maglev       LoadBalancing = "maglev"
)

// Hashes says whether a value of the request decides.
func (b LoadBalancing) Hashes() bool { return b == RingHash || b == Maglev }

// HashCookie is before the name of a cookie in [Pool.HashBy], [LimitHeader] before that of
// a header.
const HashCookie = "cookie:"

const maxHashBy = 4

func (d *document) checkHashBy(at string, p Pool) {
	if p.LoadBalancing.Hashes() != (len(p.HashBy) > 0) {
		d.invalid(at+".hashBy", "goes with %q and %q, which want it", RingHash, Maglev)
	}
	if len(p.HashBy) > maxHashBy {
		d.invalid(at+".hashBy", "%d values, more than %d", len(p.HashBy), maxHashBy)
		return
	}
	for i, by := range p.HashBy {
		at := index(at+".hashBy", i)
		header, isHeader := strings.CutPrefix(by, LimitHeader)
		cookie, isCookie := strings.CutPrefix(by, HashCookie)
		switch {
		case isHeader:
			d.checkHeaderName(at, header)
		case isCookie:
			d.checkCookieName(at, cookie)
		case by != "user" && by != "address":
			d.invalid(at, "%q is none of user, address, header:NAME and cookie:NAME", clip(by))
		}
		if slices.Contains(p.HashBy[:i], by) {
			d.invalid(at, "%q appears twice", clip(by))
		}
	}
	if p.LoadBalancing.Hashes() && p.Zones != nil && p.Zones.Prefer {
		d.invalid(at+".zones.prefer", "a hash knows no zone: the same value would have an instance in each")
	}
}

// ZoneBalance says what the zones of instances ([Endpoints.Zones]) count for; exactly one
// is set.
type ZoneBalance struct {
	// Prefer has each edge use the instances of its own zone (edge.zone) while one of them
	// is healthy.
	Prefer bool `yaml:"prefer,omitempty"`
	// Weights are each zone's share of requests, whatever the number of its instances; 1
	// where a zone is not named.
	Weights map[string]uint32 `yaml:"weights,omitempty"`
}

// maxZoneWeight bounds a share.
const maxZoneWeight = 10_000

func (d *document) checkZoneBalance(at string, z *ZoneBalance) {
	if z == nil {
		return
	}
	if z.Prefer == (len(z.Weights) > 0) {
		d.invalid(at, "wants one of prefer and weights")
	}
	if len(z.Weights) > maxZones {
		d.invalid(at+".weights", "%d zones, more than %d", len(z.Weights), maxZones)
		return
	}
	for zone, weight := range z.Weights {
		path := join(at+".weights", zone)
		d.checkZone(path, zone)
		if weight == 0 {
			d.invalid(path, "0 would take its instances away: take them out of endpoints")
		}
		d.atMost(path, weight, maxZoneWeight)
	}
}

// CircuitBreakers bound what an edge has open to a pool; more gets 503. Zero keeps
// the default.
type CircuitBreakers struct {
	MaxConnections     uint32       `yaml:"maxConnections,omitempty"`
	MaxPendingRequests uint32       `yaml:"maxPendingRequests,omitempty"`
	MaxRequests        uint32       `yaml:"maxRequests,omitempty"`
	MaxRetries         uint32       `yaml:"maxRetries,omitempty"`
	RetryBudget        *RetryBudget `yaml:"retryBudget,omitempty"` // instead of MaxRetries
}

// RetryBudget bounds retries by what is open.
type RetryBudget struct {
	Percent        float64 `yaml:"percent"` // of open requests
	MinConcurrency uint32  `yaml:"minConcurrency,omitempty"`
}

// OutlierDetection ejects an instance for a while. Zero keeps the default.
type OutlierDetection struct {
	ConsecutiveConnectFailures uint32        `yaml:"consecutiveConnectFailures,omitempty"`
	Consecutive5xx             uint32        `yaml:"consecutive5xx,omitempty"` // 0 for never
	Interval                   time.Duration `yaml:"interval,omitempty"`
	BaseEjectionTime           time.Duration `yaml:"baseEjectionTime,omitempty"`
	MaxEjectionTime            time.Duration `yaml:"maxEjectionTime,omitempty"`
	MaxEjectionPercent         uint32        `yaml:"maxEjectionPercent,omitempty"`
}

// HealthCheck asks each instance. Zero keeps the default.
type HealthCheck struct {
	Path               string        `yaml:"path,omitempty"`
	Interval           time.Duration `yaml:"interval,omitempty"`
	Timeout            time.Duration `yaml:"timeout,omitempty"`
	UnhealthyThreshold uint32        `yaml:"unhealthyThreshold,omitempty"` // failures in a row
	HealthyThreshold   uint32        `yaml:"healthyThreshold,omitempty"`   // successes in a row
}

const (
	maxBreaker = 1_000_000
	// maxHealthTimeout is what routes wait for a new pool: see server.Config.Warmup.
	maxHealthTimeout = time.Second
)

func (d *document) checkPoolSettings(at string, p Pool) {
	if c := p.CircuitBreakers; c != nil {
		at := at + ".circuitBreakers"
		d.atMost(at+".maxConnections", c.MaxConnections, maxBreaker)
		d.atMost(at+".maxPendingRequests", c.MaxPendingRequests, maxBreaker)
		d.atMost(at+".maxRequests", c.MaxRequests, maxBreaker)
		d.atMost(at+".maxRetries", c.MaxRetries, maxBreaker)
		if b := c.RetryBudget; b != nil {
			d.percent(at+".retryBudget.percent", b.Percent)
			d.atMost(at+".retryBudget.minConcurrency", b.MinConcurrency, maxBreaker)
			if c.MaxRetries != 0 {
				d.invalid(at+".retryBudget", "maxRetries would be ignored: name one of them")
			}
		}
	}
	if o := p.OutlierDetection; o != nil {
		at := at + ".outlierDetection"
		d.atMost(at+".consecutiveConnectFailures", o.ConsecutiveConnectFailures, 1000)
		d.atMost(at+".consecutive5xx", o.Consecutive5xx, 1000)
		d.atMost(at+".maxEjectionPercent", o.MaxEjectionPercent, 100)
		d.duration(at+".interval", o.Interval, 100*time.Millisecond, time.Hour)
		d.duration(at+".baseEjectionTime", o.BaseEjectionTime, 100*time.Millisecond, time.Hour)
		d.duration(at+".maxEjectionTime", o.MaxEjectionTime, 100*time.Millisecond, time.Hour)
		if o.MaxEjectionTime != 0 && o.MaxEjectionTime < o.BaseEjectionTime {
			d.invalid(at+".maxEjectionTime", "%v is less than baseEjectionTime", o.MaxEjectionTime)
		}
	}
	if h := p.HealthCheck; h != nil {
		at := at + ".healthCheck"
		if h.Path != "" {
			d.checkTarget(at+".path", h.Path)
		}
		d.duration(at+".interval", h.Interval, 100*time.Millisecond, time.Minute)
		d.duration(at+".timeout", h.Timeout, 10*time.Millisecond, maxHealthTimeout)
		d.atMost(at+".unhealthyThreshold", h.UnhealthyThreshold, 100)
		d.atMost(at+".healthyThreshold", h.HealthyThreshold, 100)
	}
	if t := p.PanicThreshold; t != nil {
		d.percent(at+".panicThreshold", *t)
	}
	switch b := p.LoadBalancing; b {
	case "", LeastRequest, RoundRobin, Random, RingHash, Maglev:
	default:
		d.invalid(at+".loadBalancing", "%q is none of %q, %q, %q, %q and %q", clip(string(b)), LeastRequest, RoundRobin, Random, RingHash, Maglev)
	}
	d.checkHashBy(at, p)
	d.checkUpstream(at, p)
	d.checkZoneBalance(at+".zones", p.Zones)
}

func (d *document) atMost(path string, got, limit uint32) {
	if got > limit {
		d.invalid(path, "%d is more than %d", got, limit)
	}
}

// percent also refuses what is not a number.
func (d *document) percent(path string, got float64) {
	if !(got >= 0 && got <= 100) {
		d.invalid(path, "%v is not between 0 and 100", got)
	}
}

// duration lets zero pass: it keeps the default.
func (d *document) duration(path string, got, least, most time.Duration) {
	if got != 0 && (got < least || got > most) {
		d.invalid(path, "%v is not between %v and %v", got, least, most)
	}
}

// checkTarget is for paths as requests name them.
func (d *document) checkTarget(path, got string) {
	if !strings.HasPrefix(got, "/") || strings.ContainsAny(got, "?# \x00\r\n") || len(got) > 256 {
		d.invalid(path, "%q is not a path: it starts with /, has at most 256 bytes and no query", clip(got))
	}
}

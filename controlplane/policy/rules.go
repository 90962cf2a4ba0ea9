package policy

import (
	"regexp"
	"slices"
	"strings"
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
		for _, r := range s.Rules {
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
	taken := map[string]string{} // match -> name of the rule that has it
	for i := range p.Services {
		names := map[string]bool{}
		for j := range p.Services[i].Rules {
			r, at := &p.Services[i].Rules[j], index(index("services", i)+".rules", j)
			if r.Name == "" || len(r.Name) > 64 || !printable(r.Name) {
				d.invalid(at+".name", "%q is not 1 to 64 printable characters", clip(r.Name))
			}
			if names[r.Name] {
				d.invalid(at+".name", "rule %q appears twice", clip(r.Name))
			}
			names[r.Name] = true
			if r.Service == "" {
				r.Service = p.Services[i].Name
			}
			d.checkMatches(at+".match", r, taken)
			d.checkRule(at, r, p)
		}
	}
}

func (d *document) checkMatches(at string, r *Rule, taken map[string]string) {
	if n := len(r.Match); n == 0 || n > maxMatches {
		d.invalid(at, "%d matches, not 1 to %d", n, maxMatches)
		return
	}
	for i, m := range r.Match {
		d.checkMatch(index(at, i), m)
		if by, ok := taken[m.key()]; ok {
			d.invalid(index(at, i), "never reached: rule %q above takes its requests", clip(by))
		}
		taken[m.key()] = r.Name
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
	if r.Timeout == 0 {
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
	if r.MaxRequestBytes > maxBufferedBytes {
		d.invalid(at+".maxRequestBytes", "%d is more than %d", r.MaxRequestBytes, maxBufferedBytes)
	}
	if r.MaxRequestBytes > 0 && r.WebSocket {
		d.invalid(at+".maxRequestBytes", "cannot be held for WebSockets: the edge would wait for their end")
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
	case c.Cookie != "" && !cookieName.MatchString(c.Cookie):
		d.invalid(at+".cookie", "%q is not a cookie name", clip(c.Cookie))
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
		sum += p.Percent
	}
	if sum > 100 {
		d.invalid(at+".pools", "together %v percent, more than 100", sum)
	}
}

// checkAnswer refuses what an edge that answers by itself would never use.
func (d *document) checkAnswer(at string, r *Rule) {
	if r.Redirect != nil && r.DirectResponse != nil {
		d.invalid(at, "both redirect and directResponse")
	}
	if a := r.DirectResponse; a != nil {
		if a.Status < 200 || a.Status > 599 {
			d.invalid(at+".directResponse.status", "%d is not between 200 and 599", a.Status)
		}
		if len(a.Body) > maxDirectBody {
			d.invalid(at+".directResponse.body", "%d bytes, more than %d", len(a.Body), maxDirectBody)
		}
	}
	if a := r.Redirect; a != nil {
		if a.Status == 0 {
			a.Status = 302
		}
		if !slices.Contains([]uint32{301, 302, 303, 307, 308}, a.Status) {
			d.invalid(at+".redirect.status", "%d is none of 301, 302, 303, 307 and 308", a.Status)
		}
		if a.Host != "" {
			d.checkAuthority(at+".redirect.host", a.Host)
		}
		if !a.HTTPS && a.Host == "" && a.Path == "" {
			d.invalid(at+".redirect", "to where it comes from: wants https, host or path")
		}
	}
	if !r.Answers() {
		return
	}
	for _, k := range []struct {
		key string
		set bool
	}{
		{"pool", r.Pool != ""}, {"canary", r.Canary != nil}, {"mirror", r.Mirror != nil}, {"rewrite", r.Rewrite != nil},
		{"websocket", r.WebSocket}, {"timeout", r.Timeout != 0}, {"idleTimeout", r.IdleTimeout != 0}, {"retries", r.Retries != nil},
		{"requestHeaders", r.RequestHeaders != nil}, {"maxRequestBytes", r.MaxRequestBytes != 0},
	} {
		if k.set {
			d.invalid(at+"."+k.key, "the edge answers these requests itself: nothing is sent to a pool")
		}
	}
}

func (d *document) checkAuthority(at, got string) {
	name, port, has := strings.Cut(got, ":")
	if has && (port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "") || strings.HasPrefix(name, "*") || len(name) > maxHost || !host.MatchString(name) {
		d.invalid(at, "%q is not a host in lower case, with or without port", clip(got))
	}
}

func (d *document) checkRewrite(at string, r *Rule) {
	if w := r.Rewrite; w != nil {
		if w.Path == "" && w.Host == "" {
			d.invalid(at+".rewrite", "neither path nor host")
		}
		if w.Host != "" {
			d.checkAuthority(at+".rewrite.host", w.Host)
		}
		d.checkReplacement(at+".rewrite.path", w.Path, r.Match)
	}
	if r.Redirect != nil {
		d.checkReplacement(at+".redirect.path", r.Redirect.Path, r.Match)
	}
}

// checkReplacement is about a path that replaces what each match names.
func (d *document) checkReplacement(at, path string, matches []Match) {
	if path == "" {
		return
	}
	d.checkTarget(at, path)
	for i, m := range matches {
		switch {
		case m.Path+m.Prefix+m.Regex == "":
			d.invalid(at, "match[%d] names no path to replace", i)
		case m.Regex != "":
			d.checkSubstitution(at, path, m.Regex)
		case strings.Contains(path, `\`):
			d.invalid(at, `\ is for matches by regex, and match[%d] is none`, i)
		case m.Prefix != "" && strings.Trim(path, "/") == "" && len(m.Prefix) > maxHost:
			d.invalid(at, "a prefix of more than %d bytes cannot be taken away", maxHost)
		}
	}
}

// checkSubstitution: Envoy knows \0 to \9 and \\.
func (d *document) checkSubstitution(at, path, expr string) {
	groups := 0
	if re, err := regexp.Compile(expr); err == nil {
		groups = re.NumSubexp()
	}
	for i := 0; i < len(path); i++ {
		if path[i] != '\\' {
			continue
		}
		i++
		switch {
		case i < len(path) && path[i] == '\\':
		case i < len(path) && path[i] >= '0' && path[i] <= '9' && int(path[i]-'0') <= groups:
		default:
			d.invalid(at, `\ is not followed by \ or the number of one of %d groups`, groups)
			return
		}
	}
}

// retryConditions are those of Envoy that an HTTP upstream can meet.
var retryConditions = []string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited",
	"retriable-4xx", "refused-stream", "retriable-status-codes",
}

func (d *document) checkRetries(at string, r *Retries) {
	if r == nil {
		return
	}
	if r.Attempts > 20 {
		d.invalid(at+".attempts", "%d is more than 20", r.Attempts)
	}
	d.duration(at+".perTryTimeout", r.PerTryTimeout, time.Millisecond, time.Hour)
	if len(r.On) == 0 && r.Attempts > 0 {
		d.invalid(at+".on", "no condition")
	}
	for i, on := range d.bounded(at+".on", r.On) {
		if !slices.Contains(retryConditions, on) {
			d.invalid(index(at+".on", i), "%q is none of %s", clip(on), strings.Join(retryConditions, ", "))
		}
	}
	if len(r.StatusCodes) > maxConditions {
		d.invalid(at+".statusCodes", "%d codes, more than %d", len(r.StatusCodes), maxConditions)
		return
	}
	if (len(r.StatusCodes) > 0) != slices.Contains(r.On, "retriable-status-codes") {
		d.invalid(at+".statusCodes", "wants the condition retriable-status-codes, and it them")
	}
	for i, c := range r.StatusCodes {
		if c < 400 || c > 599 {
			d.invalid(index(at+".statusCodes", i), "%d is not between 400 and 599", c)
		}
	}
}

func (d *document) checkCORS(at string, c *CORS) {
	if c == nil {
		return
	}
	if len(c.Origins) == 0 {
		d.invalid(at+".origins", "no origin")
	}
	for i, o := range d.bounded(at+".origins", c.Origins) {
		at := index(at+".origins", i)
		scheme, rest, ok := strings.Cut(o, "://")
		switch {
		case o == "*" && c.Credentials:
			d.invalid(at, "any origin may not have credentials")
		case o == "*":
		case !ok || scheme != "http" && scheme != "https":
			d.invalid(at, "%q is not http:// or https:// and a host, nor *", clip(o))
		case strings.HasPrefix(rest, "*."):
			d.checkAuthority(at, rest[2:])
		default:
			d.checkAuthority(at, rest)
		}
	}
	for i, m := range d.bounded(at+".methods", c.Methods) {
		if !method.MatchString(m) {
			d.invalid(index(at+".methods", i), "%q is not a method in capitals", clip(m))
		}
	}
	for i, h := range d.bounded(at+".headers", c.Headers) {
		d.checkHeaderName(index(at+".headers", i), h)
	}
	for i, h := range d.bounded(at+".exposeHeaders", c.ExposeHeaders) {
		d.checkHeaderName(index(at+".exposeHeaders", i), h)
	}
	d.duration(at+".maxAge", c.MaxAge, time.Second, 24*time.Hour)
}

// checkRateLimit: Envoy has a bucket a route, so a rule with a limit must be one.
func (d *document) checkRateLimit(at string, r *Rule) {
	l := r.RateLimit
	if l == nil {
		return
	}
	if l.Burst == 0 {
		l.Burst = l.RequestsPerSecond
	}
	if l.RequestsPerSecond == 0 || l.RequestsPerSecond > 1_000_000 {
		d.invalid(at+".requestsPerSecond", "%d is not between 1 and 1000000", l.RequestsPerSecond)
	}
	d.atMost(at+".burst", l.Burst, 1_000_000)
	switch {
	case len(r.Match) > 1 || len(r.Match) == 1 && len(r.Match[0].Hosts) > 1:
		d.invalid(at, "each match and host would have a bucket of its own: give each a rule")
	case r.Canary != nil:
		d.invalid(at, "each pool of the canary would have a bucket of its own")
	}
}

func (d *document) checkFault(at string, f *Fault) {
	if f == nil {
		return
	}
	if f.Delay == nil && f.Abort == nil {
		d.invalid(at, "neither delay nor abort")
	}
	if f.Delay != nil {
		d.percent(at+".delay.percent", f.Delay.Percent)
		if f.Delay.Duration <= 0 || f.Delay.Duration > time.Minute {
			d.invalid(at+".delay.duration", "%v is not above 0 and at most 1m", f.Delay.Duration)
		}
	}
	if f.Abort != nil {
		d.percent(at+".abort.percent", f.Abort.Percent)
		if f.Abort.Status < 400 || f.Abort.Status > 599 {
			d.invalid(at+".abort.status", "%d is not between 400 and 599", f.Abort.Status)
		}
	}
}

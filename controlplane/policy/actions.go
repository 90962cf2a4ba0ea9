package policy

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

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
		{"limits", len(r.Limits) > 0},
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

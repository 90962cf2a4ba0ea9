package policy

import (
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/wasm/color"
)

var (
	host       = regexp.MustCompile(`^(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*$`)
	method     = regexp.MustCompile(`^[A-Z]{1,20}$`)
	headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`) // the edge refuses requests with _ in a name
	cookieName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	tenantName = regexp.MustCompile(`^[a-z0-9_.-]{1,64}$`) // as the filter takes it
)

const (
	maxHost       = 120 // becomes part of a regular expression, see maxProgram
	maxConditions = 32  // of one list in a match
	maxValue      = 1024
	// maxProgram bounds a regular expression in RE2's instructions; edge/bootstrap
	// sets the edge's own bound, 200.
	maxProgram = 190
)

func (d *document) checkMatch(at string, m *Match, cohorts []color.Cohort) {
	named := 0
	for _, p := range []struct{ key, value string }{{".path", m.Path}, {".prefix", m.Prefix}} {
		if p.value != "" {
			named++
			d.checkTarget(at+p.key, p.value)
		}
	}
	if m.Regex != "" {
		named++
		d.checkRegex(at+".regex", m.Regex)
	}
	switch {
	case named > 1:
		d.invalid(at, "more than one of path, prefix and regex")
	case named+len(m.Hosts)+len(m.Methods)+len(m.Headers)+len(m.Cookies)+len(m.Query) == 0 && m.Tenant == "" && m.Cohort == "":
		d.invalid(at, "no condition: to match every request say prefix: /")
	}
	for i, h := range d.bounded(at+".hosts", m.Hosts) {
		d.checkHost(index(at+".hosts", i), h)
	}
	for i, v := range d.bounded(at+".methods", m.Methods) {
		if !method.MatchString(v) {
			d.invalid(index(at+".methods", i), "%q is not a method in capitals", clip(v))
		}
	}
	if m.Tenant != "" && !tenantName.MatchString(m.Tenant) {
		d.invalid(at+".tenant", "%q is not 1 to 64 lower-case letters, digits, dots, hyphens and underscores", clip(m.Tenant))
	}
	if m.Cohort != "" {
		d.checkCohort(at+".cohort", m, cohorts)
	}
	if n := len(m.Headers) + len(m.Cookies) + len(m.Query); n > maxConditions {
		d.invalid(at, "%d headers, cookies and query parameters, more than %d", n, maxConditions)
		return
	}
	for i, h := range m.Headers {
		at := index(at+".headers", i)
		d.checkHeaderName(at+".name", h.Name)
		d.checkCondition(at, h.Exact, h.Prefix, h.Present)
	}
	for i, c := range m.Cookies {
		at := index(at+".cookies", i)
		d.checkCookieName(at+".name", c.Name)
		d.checkCondition(at, c.Exact, c.Prefix, c.Present)
	}
	for i, q := range m.Query {
		at := index(at+".query", i)
		if q.Name == "" || len(q.Name) > 128 || !printable(q.Name) {
			d.invalid(at+".name", "%q is not 1 to 128 printable characters", clip(q.Name))
		}
		d.checkCondition(at, q.Exact, q.Prefix, q.Present)
	}
}

// checkCohort also fills in the color, by which an edge knows the cohort.
func (d *document) checkCohort(at string, m *Match, cohorts []color.Cohort) {
	i := slices.IndexFunc(cohorts, func(c color.Cohort) bool { return c.Name == m.Cohort })
	if i < 0 {
		d.invalid(at, "no cohort %q in color.cohorts", clip(m.Cohort))
		return
	}
	m.Color = ColorOf(cohorts[i])
}

// bounded reports a list that is too long, and is then empty.
func (d *document) bounded(at string, list []string) []string {
	if len(list) > maxConditions {
		d.invalid(at, "%d entries, more than %d", len(list), maxConditions)
		return nil
	}
	return list
}

func (d *document) checkCondition(at, exact, prefix string, present bool) {
	n := 0
	for _, set := range []bool{exact != "", prefix != "", present} {
		if set {
			n++
		}
	}
	if n != 1 {
		d.invalid(at, "wants one of exact, prefix and present, has %d", n)
	}
	if v := exact + prefix; len(v) > maxValue || !printable(v) {
		d.invalid(at, "a value longer than %d bytes or not printable", maxValue)
	}
}

func (d *document) checkHost(at, got string) {
	if len(got) > maxHost || !host.MatchString(got) {
		d.invalid(at, "%q is not a host in lower case, exact or *.suffix, without port and of at most %d bytes", clip(got), maxHost)
	}
}

func (d *document) checkHeaderName(at, got string) {
	if !headerName.MatchString(got) {
		d.invalid(at, "%q is not a header name: 1 to 64 letters, digits and hyphens", clip(got))
	}
}

func (d *document) checkCookieName(at, got string) {
	if !cookieName.MatchString(got) {
		d.invalid(at, "%q is not a cookie name", clip(got))
	}
}

func (d *document) checkRegex(at, expr string) {
	if len(expr) > 1024 {
		d.invalid(at, "longer than 1024 bytes")
		return
	}
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		d.invalid(at, "%q is not RE2: %s", clip(expr), strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		return
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		d.invalid(at, "%q is not RE2: %v", clip(expr), err)
		return
	}
	if cost := program(prog); cost > maxProgram {
		d.invalid(at, "%q is too costly: about %d instructions, more than %d", clip(expr), cost, maxProgram)
	}
}

// program estimates what RE2 makes of it: RE2 matches bytes, so that what is not
// ASCII costs more there than in Go.
func program(p *syntax.Prog) int {
	cost := 0
	for _, in := range p.Inst {
		switch in.Op {
		case syntax.InstRune1:
			cost += utf8.RuneLen(in.Rune[0])
		case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			cost += 12
		case syntax.InstRune:
			for i := 0; i < len(in.Rune); i += 2 {
				if last := in.Rune[min(i+1, len(in.Rune)-1)]; last < utf8.RuneSelf {
					cost++
				} else {
					cost += 12
				}
			}
		default:
			cost++
		}
	}
	return cost
}

// edgeHeaders are written by the edge and mean something to it or to HTTP itself.
var edgeHeaders = []string{
	semconv.HeaderTraceparent, semconv.HeaderTracestate, semconv.HeaderBaggage, semconv.HeaderTraceresponse,
	"host", "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
	"x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
}

func (d *document) checkHeaderChanges(at string, c *HeaderChanges) {
	if c == nil {
		return
	}
	if n := len(c.Set) + len(c.Add) + len(c.Remove); n == 0 || n > maxConditions {
		d.invalid(at, "%d changes, not 1 to %d", n, maxConditions)
		return
	}
	d.checkValues(at+".set", c.Set)
	d.checkValues(at+".add", c.Add)
	for i, name := range c.Remove {
		d.checkChanged(index(at+".remove", i), name)
	}
}

func (d *document) checkValues(at string, values map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		at := join(at, name)
		d.checkChanged(at, name)
		if v := values[name]; len(v) > maxValue || !printable(v) {
			d.invalid(at, "a value longer than %d bytes or not printable", maxValue)
		}
	}
}

func (d *document) checkChanged(at, name string) {
	d.checkHeaderName(at, name)
	lower := strings.ToLower(name)
	if strings.HasPrefix(lower, semconv.HeaderPrefix) || strings.HasPrefix(lower, "x-envoy-") {
		d.invalid(at, "%q belongs to the edge", clip(name))
		return
	}
	if slices.Contains(edgeHeaders, lower) {
		d.invalid(at, "%q belongs to the edge or to HTTP", name)
	}
}

// printable is visible ASCII and inner spaces: what a header may hold everywhere.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return s == strings.TrimSpace(s)
}

// key is the same for matches that take the same requests in the same words.
func (m Match) key() string { return fmt.Sprintf("%#v", m) }

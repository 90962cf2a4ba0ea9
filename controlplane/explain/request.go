package explain

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/core/protocol"
)

// Request is what a client would send.
type Request struct {
	Method string      `json:"method"` // in capitals
	Host   string      `json:"host"`   // with or without port
	Path   string      `json:"path"`   // with the query, as on the wire
	Header http.Header `json:"header,omitempty"`
	// Claims are of a token that the edge would verify; a token in Header is not read. Whose
	// it is, the claims iss and aud say, as in tokens.
	Claims map[string]any `json:"claims,omitempty"`
	// Peer is the address the client connects from; only trusted peers need one.
	Peer netip.Addr `json:"peer,omitzero"`
}

const (
	maxHeaders = 100 // as the edge's listener
	maxPath    = 16 << 10
)

// request is a checked Request as the edge's filters see it.
type request struct {
	method string
	path   string // normalized, with the query
	header headers
	claims string // as they reach the filter
	said   map[string]any
	peer   netip.Addr

	tenant, cohort string // as the filter has found; empty before

	upgrade bool // asks for a WebSocket
}

// headers are by name in lower case, :authority, :method and :path among them.
type headers map[string][]string

// Set implements [route.Headers].
func (h headers) Set(name, value string) { h[name] = []string{strings.Clone(value)} }

// Remove implements [route.Headers].
func (h headers) Remove(name string) { delete(h, name) }

var methodName = regexp.MustCompile(`^[A-Z]{1,20}$`)

func (r Request) read() (request, error) {
	invalid := func(field, message string) (request, error) {
		return request{}, protocol.NewError(protocol.CodeInvalidArgument, field, message)
	}
	switch {
	case !methodName.MatchString(r.Method):
		return invalid("method", "method is not a word in capitals")
	case r.Host == "" || len(r.Host) > 255 || strings.ContainsAny(r.Host, "/ @?#"):
		return invalid("host", "host is not a name or address, with or without port")
	case !strings.HasPrefix(r.Path, "/") || len(r.Path) > maxPath || strings.ContainsAny(r.Path, " #"):
		return invalid("path", "path does not begin with / or is no path")
	case len(r.Header) > maxHeaders:
		return invalid("header", "more headers than the edge takes")
	}
	out := request{method: r.Method, path: normalize(r.Path), peer: r.Peer, header: headers{}}
	for name, values := range r.Header {
		if strings.Contains(name, "_") || name == "" {
			return invalid("header", "the edge refuses requests with such a header name: "+name)
		}
		lower := strings.ToLower(name)
		out.header[lower] = append(out.header[lower], values...)
	}
	out.upgrade = strings.EqualFold(out.get("upgrade"), "websocket")
	out.header.Set(":authority", r.Host)
	out.header.Set(":method", r.Method)
	out.header.Set(":path", out.path)
	if len(r.Claims) > 0 {
		payload, err := json.Marshal(r.Claims)
		if err != nil {
			return invalid("claims", "claims are not JSON")
		}
		out.said = r.Claims
		out.claims = base64.RawURLEncoding.EncodeToString(payload)
	}
	return out, nil
}

// normalize takes dot segments and empty ones out of a path, as the edge's connection
// manager does. What is escaped stays as it is.
func normalize(target string) string {
	p, query, has := strings.Cut(target, "?")
	clean := path.Clean(p)
	if clean != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..")) {
		clean += "/"
	}
	if has {
		clean += "?" + query
	}
	return clean
}

func (r *request) has(name string) bool { return len(r.header[strings.ToLower(name)]) > 0 }

// get joins what is repeated, as Envoy does before it matches.
func (r *request) get(name string) string {
	return strings.Join(r.header[strings.ToLower(name)], ",")
}

// cookie is the first of the name, without quotes around it. As in Envoy, only space
// before a name is none of it.
func (r *request) cookie(name string) (value string, there bool) {
	for _, line := range r.header["cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if n, v, ok := strings.Cut(strings.TrimLeft(pair, " "), "="); ok && n == name {
				if len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' {
					v = v[1 : len(v)-1]
				}
				return v, true
			}
		}
	}
	return "", false
}

// matches says whether a rule's match holds, as xds.ruleMatch has Envoy decide it.
func (r *request) matches(m plan.Match) bool {
	p, query, _ := strings.Cut(r.path, "?")
	switch {
	case m.Path != "" && p != m.Path:
		return false
	case m.Prefix != "" && !hasPrefix(p, m.Prefix):
		return false
	case m.Regex != "" && !whole(m.Regex, p):
		return false
	case len(m.Hosts) > 0 && !slices.ContainsFunc(m.Hosts, r.isTo):
		return false
	case m.Tenant != "" && m.Tenant != r.tenant, m.Cohort != "" && m.Cohort != r.cohort:
		return false
	case len(m.Methods) > 0 && !slices.Contains(m.Methods, r.method):
		return false
	}
	for _, h := range m.Headers {
		if r.holds(h.Name, h.Exact, h.Prefix, h.Present, h.Not) == h.Not {
			return false
		}
	}
	for _, c := range m.Cookies {
		if v, there := r.cookie(c.Name); (there && (c.Present || is(v, c.Exact, c.Prefix))) == c.Not {
			return false
		}
	}
	for _, q := range m.Query {
		if v, there := parameter(query, q.Name); !there || !q.Present && !is(v, q.Exact, q.Prefix) {
			return false
		}
	}
	return true
}

// holds is the condition before it is inverted. A header that is missing counts as
// empty where it will be.
func (r *request) holds(name, exact, prefix string, present, inverted bool) bool {
	switch {
	case present:
		return r.has(name)
	case !r.has(name) && !inverted:
		return false
	default:
		return is(r.get(name), exact, prefix)
	}
}

func is(v, exact, prefix string) bool {
	if prefix != "" {
		return strings.HasPrefix(v, prefix)
	}
	return v == exact
}

func (r *request) matchesRoute(t plan.Route) bool {
	p, _, _ := strings.Cut(r.path, "?")
	if t.Path != "" {
		return p == t.Path
	}
	return hasPrefix(p, t.Prefix)
}

// hasPrefix is on path segments.
func hasPrefix(p, prefix string) bool {
	prefix = strings.TrimRight(prefix, "/")
	rest, ok := strings.CutPrefix(p, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

func whole(expr, p string) bool {
	re, err := regexp.Compile("^(?:" + expr + ")$")
	return err == nil && re.MatchString(p)
}

// isTo compares without port and case.
func (r *request) isTo(host string) bool {
	to := strings.ToLower(r.get(":authority"))
	if i := strings.LastIndexByte(to, ':'); i >= 0 && strings.Trim(to[i+1:], "0123456789") == "" && i+1 < len(to) {
		to = to[:i]
	}
	if suffix, wild := strings.CutPrefix(host, "*"); wild {
		label, ok := strings.CutSuffix(to, suffix)
		return ok && label != ""
	}
	return to == host
}

// parameter is the first of the name, as it is written.
func parameter(query, name string) (value string, there bool) {
	for pair := range strings.SplitSeq(query, "&") {
		if n, v, _ := strings.Cut(pair, "="); n == name && (n != "" || v != "") {
			return v, true
		}
	}
	return "", false
}

// isPreflight says whether a browser asks for permission (Fetch standard, "CORS-preflight request").
func (r *request) isPreflight() bool {
	return r.method == http.MethodOptions && r.has("origin") && r.has("access-control-request-method")
}

// preflightOf says whether r asks for permission for a request that m would match:
// it has another method than that request, and none of its headers and cookies, by which
// the edge would know tenant and cohort.
func (r *request) preflightOf(m plan.Match) bool {
	if !r.isPreflight() || len(m.Methods) > 0 && !slices.Contains(m.Methods, r.get("access-control-request-method")) {
		return false
	}
	m.Methods, m.Headers, m.Cookies, m.Tenant, m.Cohort = nil, nil, nil, "", ""
	return r.matches(m)
}

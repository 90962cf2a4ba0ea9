package kubetest

import (
	"cmp"
	"maps"
	"net/http"
	"strings"
	"sync"
)

// Call is a kind of request to the API server, in the words of RBAC. Of a request for what is
// served (discovery) only Verb is set.
type Call struct {
	Verb, Group, Resource string // Resource with its subresource, as in pods/status
}

func (c Call) String() string {
	return strings.TrimSpace(c.Verb + " " + strings.TrimSuffix(c.Resource+"."+c.Group, "."))
}

// Calls counts what clients ask of the API server.
type Calls struct {
	mu sync.Mutex
	n  map[Call]int
}

// Wrap is for rest.Config.Wrap.
func (c *Calls) Wrap(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		call := callOf(r)
		c.mu.Lock()
		if c.n == nil {
			c.n = map[Call]int{}
		}
		c.n[call]++
		c.mu.Unlock()
		return next.RoundTrip(r)
	})
}

// Counted is what was asked so far.
func (c *Calls) Counted() map[Call]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

// Work is how many of the calls are neither watches, which last, nor about the lease by which
// operators take turns.
func Work(counted map[Call]int) (n int) {
	for c, times := range counted {
		if c.Verb != "watch" && c.Resource != "leases" {
			n += times
		}
	}
	return n
}

// Since is what now has more than before.
func Since(before, now map[Call]int) map[Call]int {
	out := map[Call]int{}
	for c, n := range now {
		if more := n - before[c]; more > 0 {
			out[c] = more
		}
	}
	return out
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// callOf reads a request as the API server does: /api/v1/... or /apis/GROUP/VERSION/..., then
// namespaces/NAMESPACE, and RESOURCE/NAME/SUBRESOURCE.
func callOf(r *http.Request) Call {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	var c Call
	switch {
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		c.Group, parts = parts[1], parts[3:]
	default:
		return Call{Verb: "get"}
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	c.Resource = parts[0]
	if len(parts) > 2 {
		c.Resource += "/" + parts[2]
	}
	one := len(parts) > 1
	switch {
	case r.URL.Query().Get("watch") != "":
		c.Verb = "watch"
	case r.Method == http.MethodGet && one:
		c.Verb = "get"
	case r.Method == http.MethodGet:
		c.Verb = "list"
	default:
		c.Verb = cmp.Or(map[string]string{http.MethodPost: "create", http.MethodPut: "update"}[r.Method], strings.ToLower(r.Method))
	}
	return c
}

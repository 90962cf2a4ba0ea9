package console

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

const (
	// mapWindow is what the service map is of: short enough to see a fault grow, long
	// enough for a P95 of a part with a request a second.
	mapWindow = 30 * time.Second
	// maxLinks bounds the map: more lines than that nobody can read.
	maxLinks = 60
)

// Kinds of parts on the service map.
const (
	kindEdge     = "edge"
	kindService  = "service"
	kindQueue    = "queue"
	kindDatabase = "database"
	kindOutside  = "outside" // is called, and says nothing by itself
)

// ServiceMap is who calls whom. It is made of what callers say (see [store.Call]), so a
// caller without spans of its own is not on it.
type ServiceMap struct {
	Seconds float64 `json:"seconds"` // of the window
	Parts   []Part  `json:"parts"`   // by depth and id
	Links   []Link  `json:"links"`   // the most frequent first
	LeftOut uint64  `json:"left_out"`
}

// Part is a box on the map. Depth is how many hops it is from where calls begin.
type Part struct {
	ID     string   `json:"id"`
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	System string   `json:"system,omitempty"`
	Depth  int      `json:"depth"`
	Pools  []string `json:"pools"` // of a service; "" is where no upstream answered
}

// Link is a line. Records flow from a queue to who processes them; every other link is
// from who asks to who is asked.
type Link struct {
	From     string  `json:"from"`
	FromPool string  `json:"from_pool"`
	To       string  `json:"to"`
	ToPool   string  `json:"to_pool"`
	Verb     string  `json:"verb"`
	QPS      float64 `json:"qps"`
	Requests uint64  `json:"requests"`
	Errors   uint64  `json:"errors"`
	P95      float64 `json:"p95"` // milliseconds
}

// NewServiceMap arranges what was called in a window. What it leaves out it adds to
// leftOut, the kinds of calls that the store did not give.
func NewServiceMap(calls []store.Call, leftOut uint64, window time.Duration) ServiceMap {
	b := mapBuilder{services: servicesOf(calls), parts: map[string]*Part{}, links: []Link{}, window: window}
	for _, c := range calls {
		if c.Verb == store.Receive && processed(calls, c) {
			continue // the same records, which are counted where they are processed
		}
		b.add(c)
	}
	slices.SortStableFunc(b.links, func(a, b Link) int { return cmp.Compare(b.Requests, a.Requests) })
	m := ServiceMap{Seconds: window.Seconds(), LeftOut: leftOut, Parts: []Part{}, Links: b.links[:min(len(b.links), maxLinks)]}
	m.LeftOut += uint64(len(b.links) - len(m.Links))
	depth := depths(m.Links)
	for id, d := range depth {
		p := *b.parts[id]
		p.Depth, p.Pools = d, poolsOf(id, m.Links)
		m.Parts = append(m.Parts, p)
	}
	slices.SortFunc(m.Parts, func(a, b Part) int { return cmp.Or(cmp.Compare(a.Depth, b.Depth), cmp.Compare(a.ID, b.ID)) })
	return m
}

type mapBuilder struct {
	services map[string]bool
	parts    map[string]*Part
	links    []Link
	window   time.Duration
}

func (b *mapBuilder) add(c store.Call) {
	from, to := b.caller(c.Caller), b.target(c)
	l := Link{
		From: from, FromPool: c.CallerPool, To: to, ToPool: c.TargetPool, Verb: string(c.Verb),
		QPS: float64(c.Requests) / b.window.Seconds(), Requests: c.Requests, Errors: c.Errors, P95: ms(c.Latency.Quantile(0.95)),
	}
	if c.Verb == store.Receive || c.Verb == store.Process {
		l.From, l.FromPool, l.To, l.ToPool = l.To, l.ToPool, l.From, l.FromPool
	}
	b.links = append(b.links, l)
}

func (b *mapBuilder) part(kind, system, name string) string {
	id := kind + ":" + strings.TrimPrefix(system+"/"+name, "/")
	if kind == kindEdge {
		id = kindEdge
	}
	if b.parts[id] == nil {
		b.parts[id] = &Part{ID: id, Kind: kind, System: system, Name: cmp.Or(name, system, "unknown")}
	}
	return id
}

func (b *mapBuilder) caller(name string) string {
	if name == semconv.ServiceEdge {
		return b.part(kindEdge, "", name)
	}
	return b.part(kindService, "", name)
}

func (b *mapBuilder) target(c store.Call) string {
	switch c.Verb {
	case store.Serve, store.Command:
		return b.part(kindService, "", c.Target)
	case store.Publish, store.Receive, store.Process:
		return b.part(kindQueue, c.System, c.Target)
	case store.Query:
		return b.part(kindDatabase, c.System, c.Target)
	}
	if name := serviceOf(c.Target, b.services); name != "" {
		return b.part(kindService, "", name)
	}
	return b.part(kindOutside, c.System, c.Target)
}

// servicesOf are those that are known by spans of their own, or that the edge serves.
func servicesOf(calls []store.Call) map[string]bool {
	out := map[string]bool{}
	for _, c := range calls {
		if c.Caller != semconv.ServiceEdge {
			out[c.Caller] = true
		}
		if c.Verb == store.Serve || c.Verb == store.Command {
			out[c.Target] = true
		}
	}
	return out
}

// serviceOf knows a service by its name, or by the first label of its address, as
// Kubernetes makes them (pay.shop.svc.cluster.local).
func serviceOf(address string, services map[string]bool) string {
	label, _, _ := strings.Cut(address, ".")
	switch {
	case services[address]:
		return address
	case services[label]:
		return label
	}
	return ""
}

// processed says whether who receives c has spans of processing it too.
func processed(calls []store.Call, c store.Call) bool {
	return slices.ContainsFunc(calls, func(o store.Call) bool {
		return o.Verb == store.Process && o.Caller == c.Caller && o.CallerPool == c.CallerPool && o.System == c.System && o.Target == c.Target
	})
}

func poolsOf(id string, links []Link) []string {
	pools := map[string]bool{}
	for _, l := range links {
		if l.From == id && l.FromPool != "" {
			pools[l.FromPool] = true
		}
		if l.To == id && (l.ToPool != "" || l.Verb == string(store.Serve)) {
			pools[l.ToPool] = true
		}
	}
	out := slices.AppendSeq([]string{}, maps.Keys(pools)) // an empty list in JSON, not null
	slices.Sort(out)
	if len(out) > 1 && out[0] == "" {
		out = append(out[1:], "") // what went wrong stands below
	}
	return out
}

// depths gives every part the least hops from a part that nobody calls. A circle that
// nothing leads into begins at the first of its parts by id.
func depths(links []Link) map[string]int {
	called, out := map[string]bool{}, map[string][]string{}
	for _, l := range links {
		out[l.From] = append(out[l.From], l.To)
		if l.From != l.To {
			called[l.To] = true
		}
	}
	depth := map[string]int{}
	walk := func(level []string) {
		for d := 0; len(level) > 0; d++ {
			var next []string
			for _, id := range level {
				if _, seen := depth[id]; !seen {
					depth[id] = d
					next = append(next, out[id]...)
				}
			}
			level = next
		}
	}
	begins := slices.Sorted(maps.Keys(out))
	walk(slices.DeleteFunc(slices.Clone(begins), func(id string) bool { return called[id] }))
	for _, id := range begins {
		if _, seen := depth[id]; !seen {
			walk([]string{id})
		}
	}
	return depth
}

// lastWhole is the newest window of whole steps.
func lastWhole(now time.Time, length time.Duration) sli.Window {
	to := now.Add(-settle).Truncate(store.CallStep)
	return sli.Window{From: to.Add(-length), To: to}
}

package store

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/observability/contrast"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Comparison says in what two sets of traces differ.
type Comparison struct {
	First  int `json:"first"` // traces that were looked at
	Second int `json:"second"`
	// Causes are what a request met with, and Outcomes what came of it, such as its
	// status: where sets were chosen by that it only says what they were chosen by.
	Causes   []contrast.Separation `json:"causes"`
	Outcomes []contrast.Separation `json:"outcomes"`
}

// Compare samples traces that each query chooses, q.Limit at most of each, and ranks what
// separates them. See package contrast for the statistic.
func (s *Store) Compare(ctx context.Context, first, second TraceQuery, limit int) (Comparison, error) {
	var sets [2][]contrast.Sample
	for i, q := range []TraceQuery{first, second} {
		traces, err := s.Sample(ctx, q)
		if err != nil {
			return Comparison{}, err
		}
		for _, spans := range traces {
			sets[i] = append(sets[i], Features(spans))
		}
	}
	c := Comparison{First: len(sets[0]), Second: len(sets[1]), Causes: []contrast.Separation{}, Outcomes: []contrast.Separation{}}
	for _, sep := range contrast.Rank(sets[0], sets[1], maxFeatures) {
		if outcome(sep.Attribute) {
			c.Outcomes = append(c.Outcomes, sep)
		} else {
			c.Causes = append(c.Causes, sep)
		}
	}
	c.Causes, c.Outcomes = c.Causes[:min(limit, len(c.Causes))], c.Outcomes[:min(limit, len(c.Outcomes))]
	return c, nil
}

const maxFeatures = 1000

// Features are what is known of one request by the spans of its trace: where it was
// served, what its entry span and the resources of its services say, how long each
// dependency took it, and where most of its time was spent.
func Features(spans []Span) contrast.Sample {
	out := contrast.Sample{}
	put := func(name, value string) {
		if value != "" && len(out) < maxFeatures {
			out[name] = value
		}
	}
	for i := range spans {
		s := &spans[i]
		if s.Traffic.Entry {
			put("pool", s.Traffic.Pool)
			put("route", s.Traffic.Route)
			put("service", s.Traffic.Service)
			for k, v := range s.Attributes {
				if !strings.HasPrefix(k, semconv.BaggagePrefix) && !left(k) {
					put(k, v)
				}
			}
		}
		for k, v := range s.Resource {
			if !strings.HasPrefix(k, semconv.BaggagePrefix) && !strings.HasPrefix(k, "telemetry.") && k != "service.name" {
				put(s.Service+": "+k, v)
			}
		}
		if name := dependency(s); name != "" {
			out["dependency "+name] = worse(out["dependency "+name], class(s))
		}
	}
	put("slowest hop", slowest(spans))
	return out
}

// left says whether an attribute of the entry is left out: a column has it, or it is a size,
// whose very value says nothing.
func left(name string) bool {
	return name == "http.route" || name == "duration_us" || name == "duration_ms" || name == "request.bytes"
}

// outcome says whether an attribute is what came of a request.
func outcome(name string) bool {
	switch name {
	case "http.response.status_code", "error.type", "response.flags", "response.bytes", "upstream.attempts":
		return true
	}
	return false
}

// dependency names what a span waited for, or nothing.
func dependency(s *Span) string {
	hop := Hop(*s)
	switch {
	case s.Kind != "Client" && s.Kind != "Producer" && s.Kind != "Consumer":
		return ""
	case s.Attributes["messaging.system"] != "":
		return hop + " " + cmp.Or(s.Attributes["messaging.destination.name"], s.Attributes["messaging.source.name"])
	default:
		return strings.TrimSpace(hop + " " + cmp.Or(s.Attributes["server.address"], s.Attributes["peer.service"], s.Attributes["db.namespace"], s.Name))
	}
}

// classes of how a dependency served, best first.
func classes() []string {
	return []string{"under 1 ms", "1 to 10 ms", "10 to 100 ms", "100 ms to 1 s", "1 s and more", "an error"}
}

func class(s *Span) string {
	all := classes()
	if s.Status == "Error" {
		return all[len(all)-1]
	}
	i := 0
	for limit := time.Millisecond; i < len(all)-2 && s.Duration >= limit; limit *= 10 {
		i++
	}
	return all[i]
}

func worse(a, b string) string {
	all := classes()
	if slices.Index(all, a) > slices.Index(all, b) {
		return a
	}
	return b
}

// slowest names the span that most of a trace's time passed in, without its children.
func slowest(spans []Span) string {
	var name string
	longest := time.Duration(-1)
	var walk func([]*Node)
	walk = func(nodes []*Node) {
		for _, n := range nodes {
			if n.Self > longest {
				longest, name = n.Self, n.Service+" "+cmp.Or(dependency(&n.Span), n.Hop)
			}
			walk(n.Children)
		}
	}
	walk(Tree(spans))
	return name
}

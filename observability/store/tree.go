package store

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/observability/semconv"
)

// Node is a span with the spans it caused.
type Node struct {
	Span
	Hop      string        `json:"hop"`  // what it crossed, see [Hop]
	Self     time.Duration `json:"self"` // of Duration, what passed outside of its children
	Children []*Node       `json:"children,omitempty"`
}

// Tree arranges the spans of one trace under their parents. A span whose parent is not
// among them is a root, and so is one that would close a circle.
func Tree(spans []Span) []*Node {
	nodes := make([]*Node, len(spans))
	byID := make(map[string]*Node, len(spans))
	for i := range spans {
		nodes[i] = &Node{Span: spans[i], Hop: Hop(spans[i])}
		if _, taken := byID[spans[i].SpanID]; !taken {
			byID[spans[i].SpanID] = nodes[i]
		}
	}
	parent := func(n *Node) *Node { return byID[n.ParentSpanID] }
	var roots []*Node
	for _, n := range nodes {
		if p := parent(n); p != nil && !circular(n, parent, len(nodes)) {
			p.Children = append(p.Children, n)
			continue
		}
		roots = append(roots, n)
	}
	for _, n := range nodes {
		n.Self = n.self()
	}
	return roots
}

// self is what children do not cover of a span; of a child only what lies within it
// counts, and where children overlap it counts once.
func (n *Node) self() time.Duration {
	end := n.Timestamp.Add(n.Duration)
	left, at := n.Duration, n.Timestamp
	children := slices.SortedFunc(slices.Values(n.Children), func(a, b *Node) int { return a.Timestamp.Compare(b.Timestamp) })
	for _, c := range children {
		from, to := c.Timestamp, c.Timestamp.Add(c.Duration)
		if from.Before(at) {
			from = at
		}
		if to.After(end) {
			to = end
		}
		if to.After(from) {
			left -= to.Sub(from)
			at = to
		}
	}
	return left
}

// Hop says what a span crossed: the edge, a message queue ("kafka publish", receive,
// process), a database ("postgresql INSERT"), or else its kind ("server").
func Hop(s Span) string {
	if s.Service == semconv.ServiceEdge {
		return "edge"
	}
	if system := s.Attributes["messaging.system"]; system != "" {
		byKind := map[string]string{"Producer": "publish", "Consumer": "process"}[s.Kind]
		return strings.TrimSpace(system + " " + cmp.Or(operation(&s), byKind))
	}
	if system := database(&s); system != "" {
		return strings.TrimSpace(system + " " + cmp.Or(s.Attributes["db.operation.name"], s.Attributes["db.operation"]))
	}
	return strings.ToLower(s.Kind)
}

// circular says whether n is its own ancestor; limit is the longest way without one.
func circular(n *Node, parent func(*Node) *Node, limit int) bool {
	p := parent(n)
	for range limit {
		if p == nil {
			return false
		}
		if p == n {
			return true
		}
		p = parent(p)
	}
	return false
}

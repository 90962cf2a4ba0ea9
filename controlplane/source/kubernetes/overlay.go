package kubernetes

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/group"
)

// resource is a Route, a Cohort or a TrafficGroup.
type resource struct {
	kind, name string
	uid        string
	generation int64
	rule       string    // of a Route: SERVICE/RULE
	group      group.ID  // of a TrafficGroup: what it selects, which nobody else may
	created    time.Time // of a TrafficGroup: the oldest wins
	says       string    // what follows from it, in words
	// into adds it to a policy document, or says why it cannot.
	into func(root *yaml.Node) error
}

func (r resource) String() string { return r.kind + "/" + r.name }

// conflictError is a resource that says something of a group that is somebody else's.
type conflictError struct {
	group group.ID
	owner string
}

func (e *conflictError) Error() string {
	return fmt.Sprintf("group %s is that of %s already", e.group, e.owner)
}

// overlay is the policy of a base document with resources laid over it, in the order
// of their names (TrafficGroups: of their age), rules after those of the document. It is
// a pure function: resources that do not go together with the rest are left out, and
// refused says why. An error is about the document itself.
func overlay(parse func([]byte) (policy.Policy, error), base []byte, rs []resource) (p policy.Policy, raw []byte, refused map[string]error, err error) {
	rs = slices.Clone(rs)
	slices.SortFunc(rs, func(a, b resource) int {
		return cmp.Or(strings.Compare(a.kind, b.kind), a.created.Compare(b.created), strings.Compare(a.name, b.name))
	})
	refused = map[string]error{}
	owners := map[group.ID]string{}
	rs = slices.DeleteFunc(rs, func(r resource) bool { return conflicts(r, owners, refused) })
	if len(rs) == 0 {
		p, err = parse(base)
		return p, base, refused, err
	}
	if raw, err = merge(base, rs); err == nil {
		if p, err = parse(raw); err == nil {
			return p, raw, refused, nil // as nearly always
		}
	}
	if p, err = parse(base); err != nil {
		return policy.Policy{}, base, map[string]error{}, err
	}
	owners = map[group.ID]string{}
	for _, g := range p.Decide.Groups {
		if id, err := g.Group(); err == nil {
			owners[id] = fmt.Sprintf("%q in the policy", g.Name)
		}
	}
	raw = base
	var good []resource
	for _, r := range rs {
		if conflicts(r, owners, refused) {
			continue
		}
		next, err := merge(base, append(good, r))
		if err != nil {
			refused[r.String()] = err
			continue
		}
		candidate, err := parse(next)
		if err != nil {
			refused[r.String()] = err
			continue
		}
		good, p, raw = append(good, r), candidate, next
	}
	return p, raw, refused, nil
}

// conflicts makes the resource the owner of its group, or says whose that is.
func conflicts(r resource, owners map[group.ID]string, refused map[string]error) bool {
	if r.group == "" {
		return false
	}
	if owner, taken := owners[r.group]; taken {
		refused[r.String()] = &conflictError{r.group, owner}
		return true
	}
	owners[r.group] = fmt.Sprintf("%s %q", r.kind, r.name)
	return false
}

// merge writes a document with all of rs in it. It works on YAML's own nodes, so that
// scalars stay as they were written: the id 012345 is no number.
func merge(base []byte, rs []resource) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(base, &document); err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if len(document.Content) == 0 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("read policy: it has no keys")
	}
	uncomment(&document)
	for _, r := range rs {
		if err := r.into(document.Content[0]); err != nil {
			return nil, err
		}
	}
	return yaml.Marshal(&document)
}

func uncomment(n *yaml.Node) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	for _, c := range n.Content {
		uncomment(c)
	}
}

// route says the same in the policy's words: JSON of the resource is YAML of a rule.
func route(r *v1alpha1.Route) resource {
	says := fmt.Sprintf("rule %s of service %s", r.Name, r.Spec.Service)
	return resource{kind: "Route", name: r.Name, uid: string(r.UID), generation: r.Generation, rule: r.Spec.Service + "/" + r.Name, says: says, into: func(root *yaml.Node) error {
		rule, err := plain(r.Spec)
		if err != nil {
			return err
		}
		delete(rule, "service")
		if retries, ok := rule["retries"].(map[string]any); ok {
			retries["on"] = retries["retryOn"]
			delete(retries, "retryOn")
		}
		percents(rule)
		rule["name"] = r.Name
		services, err := child(root, "services", yaml.SequenceNode)
		if err != nil {
			return err
		}
		for _, s := range services.Content {
			if name := find(s, "name"); name == nil || name.Value != r.Spec.Service {
				continue
			}
			rules, err := child(s, "rules", yaml.SequenceNode)
			if err != nil {
				return err
			}
			return add(rules, rule)
		}
		return fmt.Errorf("service: the policy has no service %q", r.Spec.Service)
	}}
}

// percents writes as numbers what Kubernetes writes as quantities.
func percents(rule map[string]any) {
	at := func(keys ...string) map[string]any {
		m := rule
		for _, k := range keys {
			m, _ = m[k].(map[string]any)
		}
		return m
	}
	shares := []map[string]any{at("mirror"), at("fault", "delay"), at("fault", "abort")}
	if pools, ok := at("canary")["pools"].([]any); ok {
		for _, p := range pools {
			if m, ok := p.(map[string]any); ok {
				shares = append(shares, m)
			}
		}
	}
	for _, m := range shares {
		if text, ok := m["percent"].(string); ok {
			if q, err := apiresource.ParseQuantity(text); err == nil { // all are: the API server has written them
				m["percent"] = q.AsApproximateFloat64()
			}
		}
	}
}

func cohort(c *v1alpha1.Cohort) resource {
	says := "cohort " + c.Name
	return resource{kind: "Cohort", name: c.Name, uid: string(c.UID), generation: c.Generation, says: says, into: func(root *yaml.Node) error {
		spec, err := plain(c.Spec)
		if err != nil {
			return err
		}
		entry := map[string]any{"name": c.Name, "match": map[string]any{"any": spec["any"]}}
		for _, key := range []string{"color", "env"} {
			if v, ok := spec[key]; ok {
				entry[key] = v
			}
		}
		color, err := child(root, "color", yaml.MappingNode)
		if err != nil {
			return err
		}
		cohorts, err := child(color, "cohorts", yaml.SequenceNode)
		if err != nil {
			return err
		}
		if err := add(cohorts, entry); err != nil || c.Spec.Pool == "" {
			return err
		}
		pools, err := child(root, "cohortPools", yaml.MappingNode)
		if err != nil {
			return err
		}
		if find(pools, c.Name) != nil {
			return errors.New("metadata.name: the policy has a pool for a cohort of this name")
		}
		return set(pools, c.Name, c.Spec.Pool)
	}}
}

// trafficGroup is the entry of a group in decide.groups.
func trafficGroup(tg *v1alpha1.TrafficGroup) resource {
	sel := tg.Spec.Selector
	own := decide.GroupPolicy{Name: tg.Name, ID: sel.ID, Color: sel.Color, Env: sel.Env, Tenant: sel.Tenant, Mode: decide.Mode(strings.ToLower(tg.Spec.Mode))}
	var says []string
	if o := tg.Spec.Objectives; o != nil {
		if o.MaxP95Milliseconds != nil {
			own.MaxP95 = time.Duration(*o.MaxP95Milliseconds) * time.Millisecond
			says = append(says, "P95 of at most "+own.MaxP95.String())
		}
		if o.MaxP99Milliseconds != nil {
			own.MaxP99 = time.Duration(*o.MaxP99Milliseconds) * time.Millisecond
			says = append(says, "P99 of at most "+own.MaxP99.String())
		}
		if o.MaxErrorRatio != nil {
			ratio := o.MaxErrorRatio.AsApproximateFloat64()
			own.MaxErrorRatio = &ratio
			says = append(says, fmt.Sprintf("errors of at most %.4g%%", 100*ratio))
		}
	}
	if own.Mode != "" {
		says = append(says, "mode "+string(own.Mode))
	}
	id, wrong := own.Group()
	words := "decisions on group " + string(id) + " go by the policy's objectives and mode"
	if len(says) > 0 {
		words = "decisions on group " + string(id) + " go by " + strings.Join(says, ", ")
	}
	return resource{kind: "TrafficGroup", name: tg.Name, uid: string(tg.UID), generation: tg.Generation, group: id, created: tg.CreationTimestamp.Time, says: words, into: func(root *yaml.Node) error {
		if wrong != nil {
			return fmt.Errorf("selector.%w", wrong)
		}
		decisions, err := child(root, "decide", yaml.MappingNode)
		if err != nil {
			return err
		}
		groups, err := child(decisions, "groups", yaml.SequenceNode)
		if err != nil {
			return err
		}
		return add(groups, own)
	}}
}

// find is the value under key, or nil.
func find(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content) && m.Kind == yaml.MappingNode; i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// child is the list or map under key, made where there is none.
func child(m *yaml.Node, key string, kind yaml.Kind) (*yaml.Node, error) {
	v := find(m, key)
	switch {
	case v == nil:
		v = &yaml.Node{Kind: kind}
		m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, v)
	case v.Tag == "!!null":
		*v = yaml.Node{Kind: kind}
	case v.Kind != kind:
		return nil, fmt.Errorf("%s: the policy has something else there", key)
	}
	return v, nil
}

func add(list *yaml.Node, v any) error {
	n := &yaml.Node{}
	if err := n.Encode(v); err != nil {
		return fmt.Errorf("write spec: %w", err)
	}
	list.Content = append(list.Content, n)
	return nil
}

func set(m *yaml.Node, key, v string) error {
	k := &yaml.Node{}
	if err := k.Encode(key); err != nil { // in quotes where it looks like a number
		return fmt.Errorf("write spec: %w", err)
	}
	m.Content = append(m.Content, k)
	return add(m, v)
}

// plain is a spec as maps, with whole numbers.
func plain(spec any) (map[string]any, error) {
	js, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("write spec: %w", err)
	}
	var out map[string]any
	if err := yaml.Unmarshal(js, &out); err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	return out, nil
}

package load

import (
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/observability/semconv"
)

// edits are the changes of a policy that [Changes] makes, by kind. Each takes a document
// and gives it something that no request of the lab has to do with; turn makes it
// another each time. Comments and order stay as they are.
func edits() map[string]func(doc *yaml.Node, turn int) error {
	return map[string]func(*yaml.Node, int) error{
		"cohort":  addCohort,
		"rule":    addRule,
		"weight":  addCanary,
		"pool":    changePool,
		"service": addService,
	}
}

// edited is the policy with a change of a kind.
func edited(policy []byte, kind string, turn int) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(policy, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return nil, errors.New("is empty")
	}
	if err := edits()[kind](doc.Content[0], turn); err != nil {
		return nil, err
	}
	return yaml.Marshal(&doc)
}

// observing is the policy in which the decision engine only looks on, for every group.
func observing(policy []byte) ([]byte, error) {
	return deciding(policy, func(section *yaml.Node) error {
		observe := string(decide.ModeObserve)
		if groups := child(section, "groups"); groups != nil {
			for _, g := range groups.Content {
				if child(g, "mode") == nil {
					continue
				}
				if err := set(g, "mode", observe); err != nil {
					return err
				}
			}
		}
		return set(section, "mode", observe)
	})
}

// deciding is the policy with another section decide.
func deciding(policy []byte, edit func(section *yaml.Node) error) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(policy, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("is no mapping")
	}
	root := doc.Content[0]
	section := child(root, "decide")
	if section == nil {
		section = &yaml.Node{Kind: yaml.MappingNode}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "decide"}, section)
	}
	if err := edit(section); err != nil {
		return nil, err
	}
	return yaml.Marshal(&doc)
}

func addCohort(doc *yaml.Node, turn int) error {
	cohorts := child(child(doc, "color"), "cohorts")
	if cohorts == nil || cohorts.Kind != yaml.SequenceNode {
		return errors.New("has no list color.cohorts")
	}
	name := fmt.Sprintf("lab-%d", turn)
	return add(cohorts, map[string]any{"name": name, "match": map[string]any{"header": map[string]any{"name": "x-lab", "exact": name}}})
}

// addRule has a host of its own, so it is a virtual host that comes and goes.
func addRule(doc *yaml.Node, turn int) error {
	rules, _, err := servedRules(doc)
	if err != nil {
		return err
	}
	return add(rules, map[string]any{
		"name": fmt.Sprintf("lab-%d", turn), "match": []any{map[string]any{"hosts": []string{fmt.Sprintf("lab-%d.test", turn)}}}, "timeout": "3s",
	})
}

// addCanary has another weight each time.
func addCanary(doc *yaml.Node, turn int) error {
	rules, pools, err := servedRules(doc)
	if err != nil {
		return err
	}
	if len(pools) < 2 {
		return errors.New("has only one pool in the service that is asked")
	}
	return add(rules, map[string]any{
		"name": "lab-canary", "match": []any{map[string]any{"prefix": "/lab-canary"}},
		"canary": map[string]any{"cookie": "lab", "pools": []any{map[string]any{"pool": child(pools[1], "name").Value, "percent": 1 + turn%50}}},
	})
}

// changePool changes the limits of a pool that serves.
func changePool(doc *yaml.Node, turn int) error {
	_, pools, err := servedRules(doc)
	if err != nil {
		return err
	}
	pool := pools[0]
	var key, value yaml.Node
	if err := errors.Join(key.Encode("circuitBreakers"), value.Encode(map[string]any{"maxRequests": 20_001 + turn})); err != nil {
		return err
	}
	pool.Content = append(pool.Content, &key, &value)
	return nil
}

func addService(doc *yaml.Node, turn int) error {
	services := child(doc, "services")
	if services == nil || services.Kind != yaml.SequenceNode {
		return errors.New("has no list services")
	}
	name := fmt.Sprintf("lab-%d", turn)
	if err := add(services, map[string]any{
		"name": name, "pools": []any{map[string]any{"name": "baseline"}}, "routes": []any{map[string]any{"name": name, "prefix": "/" + name}},
	}); err != nil {
		return err
	}
	last := len(services.Content) - 1 // first, since the others' routes may take everything
	services.Content = append([]*yaml.Node{services.Content[last]}, services.Content[:last]...)
	return nil
}

// served is the service that the lab's users ask: core, or the first where none has that
// name.
func served(doc *yaml.Node) (*yaml.Node, error) {
	services := child(doc, "services")
	if services == nil || services.Kind != yaml.SequenceNode || len(services.Content) == 0 {
		return nil, errors.New("has no list services")
	}
	for _, s := range services.Content {
		if name := child(s, "name"); name != nil && name.Value == semconv.ServiceCore {
			return s, nil
		}
	}
	return services.Content[0], nil
}

// servedRules are the rules of the service that is asked, made where it has none, and its
// pools.
func servedRules(doc *yaml.Node) (rules *yaml.Node, pools []*yaml.Node, err error) {
	service, err := served(doc)
	if err != nil {
		return nil, nil, err
	}
	list := child(service, "pools")
	if list == nil || list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
		return nil, nil, errors.New("has a service without pools")
	}
	if rules = child(service, "rules"); rules == nil {
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: "rules"}
		rules = &yaml.Node{Kind: yaml.SequenceNode}
		service.Content = append(service.Content, key, rules)
	}
	return rules, list.Content, nil
}

func add(list *yaml.Node, item any) error {
	var n yaml.Node
	if err := n.Encode(item); err != nil {
		return err
	}
	list.Content = append(list.Content, &n)
	return nil
}

// set gives a key of a mapping its value, and leaves its comment.
func set(mapping *yaml.Node, key string, to any) error {
	var value yaml.Node
	if err := value.Encode(to); err != nil {
		return err
	}
	if at := child(mapping, key); at != nil {
		value.LineComment = at.LineComment
		*at = value
		return nil
	}
	mapping.Content = append(mapping.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, &value)
	return nil
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

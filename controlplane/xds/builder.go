package xds

import (
	"fmt"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tracegate/tracegate/controlplane/plan"
)

// Names that the edge's resources refer to each other by.
const (
	ListenerName = "edge"
	RoutesName   = "edge"
	FilterName   = "traffic" // the Wasm filter, its ECDS resource and its root id
	ObserveName  = "observe" // cluster of the OTLP receiver
)

// Build renders p. An error says which resource breaks a rule of Envoy's own
// validation, so it is found here and not as a NACK.
func Build(p plan.Plan) (*Snapshot, error) { return new(Builder).Build(p) }

// Messages are what [Build] would marshal, for whoever serves it in another way.
func Messages(p plan.Plan) ([NumTypes][]proto.Message, error) {
	var out [NumTypes][]proto.Message
	b := Builder{rendered: func(t Type, m proto.Message) { out[t] = append(out[t], m) }}
	_, err := b.Build(p)
	return out, err
}

// Builder renders one plan after the other and keeps what each resource was made
// from: what has not changed is not rendered, validated, marshaled or hashed again.
// The snapshot is the one that [Build] makes, to the byte. The zero value has nothing
// yet; it is for one goroutine.
//
// It compares plans, and a part that two share in memory it takes for the same. So a
// plan that was built must not be edited.
type Builder struct {
	last     *Snapshot
	build    int // counts calls, to tell what is out of use
	made     [NumTypes]map[string]*made
	current  [NumTypes][]Resource // of the call, as they came
	before   [NumTypes][]Resource // of the last one that succeeded
	services map[string]*serviceMade
	choosers map[string]madeChooser
	rules    ruleTable
	base     []service
	sets     []poolSet
	rendered func(Type, proto.Message) // takes what would be marshaled, where not nil
}

// made is a resource and what it was made from.
type made struct {
	from     any
	resource Resource
	build    int // that used it last
}

// validated is what protoc-gen-validate generates for every Envoy message.
type validated interface {
	proto.Message
	ValidateAll() error
}

// Build renders p. After an error the last snapshot still counts.
func (b *Builder) Build(p plan.Plan) (*Snapshot, error) {
	if err := b.rules.fill(p); err != nil {
		return nil, err
	}
	return b.assemble(p, b.edge, b.secrets, b.pools, b.hosts)
}

func (b *Builder) assemble(p plan.Plan, sections ...func(plan.Plan) error) (*Snapshot, error) {
	b.build++
	for t := range b.current {
		b.current[t] = b.current[t][:0]
		if b.made[t] == nil {
			b.made[t] = map[string]*made{}
		}
	}
	for _, section := range sections {
		if err := section(p); err != nil {
			return nil, err
		}
	}
	for t := range b.made {
		for name, m := range b.made[t] {
			if m.build != b.build {
				delete(b.made[t], name)
			}
		}
	}
	resources := b.current
	for t := range resources {
		if b.last != nil && slices.Equal(resources[t], b.before[t]) {
			resources[t] = b.last.Resources[t]
		}
	}
	b.last = newSnapshot(resources, b.last)
	b.current, b.before = b.before, b.current
	return b.last, nil
}

// put adds a resource that is made from from, and from nothing else: what render
// looks at beside it would change unseen.
func (b *Builder) put(t Type, name string, from any, render func() (validated, error)) error {
	m := b.made[t][name]
	if m == nil || !reflect.DeepEqual(m.from, from) {
		r, err := b.resource(t, name, render)
		if err != nil {
			return err
		}
		m = &made{resource: r}
		b.made[t][name] = m
	}
	m.from = from // may share more with the next plan
	b.use(t, m)
	return nil
}

func (b *Builder) use(t Type, m *made) {
	m.build = b.build
	b.current[t] = append(b.current[t], m.resource)
}

func (b *Builder) resource(t Type, name string, render func() (validated, error)) (Resource, error) {
	m, err := render()
	if err != nil {
		return Resource{}, fmt.Errorf("render %s %q: %w", t, name, err)
	}
	if err := m.ValidateAll(); err != nil {
		return Resource{}, fmt.Errorf("validate %s %q: %w", t, name, err)
	}
	if b.rendered != nil {
		b.rendered(t, m)
		return Resource{Name: name}, nil
	}
	return NewResource(name, m)
}

// edge is what an edge has one of.
func (b *Builder) edge(p plan.Plan) error {
	observe, filter := observeSource{p.Edge.Observe, p.Edge.Identity}, filterSource{p.Edge.Wasm, p.Filter, p.FailClosed}
	tokens := jwtSource{session: p.Edge.JWKS, providers: p.JWT}
	required := tokens
	required.required = requirements(p.Services)
	discovered := func(name string, from any, config func() (*anypb.Any, error)) error {
		return b.put(Extensions, name, from, func() (validated, error) {
			a, err := config()
			return extensionConfig(name, a), err
		})
	}
	if err := b.entrances(p); err != nil {
		return err
	}
	if err := b.put(Clusters, ObserveName, observe, func() (validated, error) { return observeCluster(observe) }); err != nil {
		return err
	}
	if addr := p.Edge.RateLimit; addr != "" {
		if err := b.put(Clusters, RateLimitName, addr, func() (validated, error) { return rateLimitCluster(addr) }); err != nil {
			return err
		}
	}
	if err := discovered(RateLimitName, p.Edge.RateLimit, func() (*anypb.Any, error) { return globalLimit(p.Edge.RateLimit) }); err != nil {
		return err
	}
	if err := discovered(JWTName, tokens, func() (*anypb.Any, error) { return packed(verify(tokens)) }); err != nil {
		return err
	}
	if err := discovered(RequireName, required, func() (*anypb.Any, error) { return packed(require(required)) }); err != nil {
		return err
	}
	return discovered(FilterName, filter, func() (*anypb.Any, error) { return trafficFilter(filter) })
}

// hosts are the route configuration and the virtual hosts beside it.
func (b *Builder) hosts(p plan.Plan) error {
	base, places := b.baseRoutes(p)
	config := configSource{host: b.source(p, base, places, anyHost), retired: p.Retired, buffers: b.rules.buffers, sheds: p.Sheds}
	for i, s := range base {
		config.choosers = append(config.choosers, chooserSource{s.name, places[i]})
	}
	if err := b.put(Routes, RoutesName, config, func() (validated, error) { return b.routes(config) }); err != nil {
		return err
	}
	if err := b.bounded(base); err != nil {
		return err
	}
	for _, host := range b.rules.hosts() {
		if m := b.made[VirtualHosts][host.name]; m != nil && b.isMadeFrom(m.from.(hostSource), p, base, places, host.pattern) {
			b.use(VirtualHosts, m)
			continue
		}
		if err := b.putHost(b.source(p, base, places, host.pattern)); err != nil {
			return err
		}
	}
	return b.putHost(hostSource{host: noHost})
}

// maxHostRoutes bounds what is repeated for each host that rules name: rules of no
// host or a wider one, and the services' own routes.
const maxHostRoutes = 100_000

func (b *Builder) bounded(base []service) error {
	own := 0
	for _, s := range base {
		own += len(s.routes)
	}
	n := 0
	for _, host := range b.rules.hosts() {
		rules, all := b.rules.of(host.pattern)
		if n += len(rules); !all {
			n += own
		}
	}
	if n > maxHostRoutes {
		return fmt.Errorf("%d hosts have %d rules and routes together, more than %d: end the rules of a host with one that takes every path (prefix: /), and nothing behind it is repeated for the host",
			len(b.rules.hosts()), n, maxHostRoutes)
	}
	return nil
}

func (b *Builder) putHost(s hostSource) error {
	name := hostName(s.host)
	return b.put(VirtualHosts, name, s, func() (validated, error) { return virtualHost(name, s) })
}

func (b *Builder) source(p plan.Plan, base []service, of []places, host string) hostSource {
	rules, all := b.rules.of(host)
	s := hostSource{host: host, failClosed: p.FailClosed}
	for _, r := range rules {
		from := ruleSource{rule: r.rule}
		if len(r.rule.Limits) > 0 {
			s.limits = p.Limits
		}
		if r.rule.Canary != nil {
			from.places = of[r.service]
		}
		s.rules = append(s.rules, from)
	}
	if !all {
		s.base = base
	}
	return s
}

// isMadeFrom says whether s is what [Builder.source] would give, in the same memory.
// It costs next to nothing, which counts where there are many hosts.
func (b *Builder) isMadeFrom(s hostSource, p plan.Plan, base []service, of []places, host string) bool {
	rules, all := b.rules.of(host)
	if all {
		base = nil
	}
	if s.failClosed != p.FailClosed || len(s.rules) != len(rules) || !shared(s.base, base) {
		return false
	}
	for i, r := range rules {
		if s.rules[i].rule != r.rule || len(r.rule.Limits) > 0 && !reflect.DeepEqual(s.limits, p.Limits) {
			return false
		}
		if r.rule.Canary != nil && !s.rules[i].places.shared(of[r.service]) {
			return false
		}
	}
	return true
}

// shared says whether two slices are the same memory.
func shared[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// service is what the routes of a service are made from.
type service struct {
	name   string
	routes []plan.Route
}

// places are the moves and cohorts that concern a service.
type places struct {
	moves   []plan.Move
	cohorts []plan.Cohort
}

func (p places) shared(o places) bool {
	return shared(p.moves, o.moves) && shared(p.cohorts, o.cohorts)
}

// poolSet is what services that have pools of the same names share.
type poolSet struct {
	pools  []string
	places places
}

// baseRoutes are the services' own, with what moves and cohorts concern each service.
// What is as it was in the last plan is the last plan's own, so that later comparisons
// are short.
func (b *Builder) baseRoutes(p plan.Plan) ([]service, []places) {
	base, out := make([]service, len(p.Services)), make([]places, len(p.Services))
	var sets []poolSet
	for i, s := range p.Services {
		base[i] = service{s.Name, s.Routes}
		same := func(set poolSet) bool {
			return slices.EqualFunc(set.pools, s.Pools, func(name string, p plan.Pool) bool { return name == p.Name })
		}
		at := slices.IndexFunc(sets, same)
		if at < 0 {
			at = len(sets)
			set := newPoolSet(p, s)
			if last := slices.IndexFunc(b.sets, same); last >= 0 && reflect.DeepEqual(b.sets[last], set) {
				set = b.sets[last]
			}
			sets = append(sets, set)
		}
		out[i] = sets[at].places
	}
	if reflect.DeepEqual(base, b.base) {
		base = b.base
	}
	b.base, b.sets = base, sets
	return base, out
}

func newPoolSet(p plan.Plan, s plan.Service) poolSet {
	var set poolSet
	for _, pool := range s.Pools {
		set.pools = append(set.pools, pool.Name)
	}
	for _, m := range p.Moves {
		if s.Has(m.Pool) {
			set.places.moves = append(set.places.moves, m)
		}
	}
	for _, c := range p.Cohorts {
		if s.Has(c.Pool) {
			set.places.cohorts = append(set.places.cohorts, c)
		}
	}
	return set
}

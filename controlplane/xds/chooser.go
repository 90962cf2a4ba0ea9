package xds

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	specifierv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/router/cluster_specifiers/matcher/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/observability/semconv"
)

const baseline = semconv.PoolBaseline

// chooserSource is what a chooser is made from.
type chooserSource struct {
	service string
	places  places
}

type madeChooser struct {
	from   chooserSource
	plugin *routev3.ClusterSpecifierPlugin
}

// plugins are the choosers: a cluster specifier for each service, by its name. Each
// chooses among the pools: moved group, cohort, baseline. Routes refer to them, so a
// move changes a table and no route, and Envoy finds a group by one look-up.
//
// A service that is gone keeps one for a while: Envoy takes no route configuration
// whose virtual hosts refer to a chooser that it lacks, and their last update is still
// on its way.
func (b *Builder) plugins(sources []chooserSource, retired []string) ([]*routev3.ClusterSpecifierPlugin, error) {
	for _, name := range retired {
		sources = append(slices.Clip(sources), chooserSource{service: name})
	}
	next := make(map[string]madeChooser, len(sources))
	out := make([]*routev3.ClusterSpecifierPlugin, 0, len(sources))
	for _, s := range sources {
		m, ok := b.choosers[s.service]
		if !ok || !reflect.DeepEqual(m.from, s) {
			plugin, err := chooserPlugin(s)
			if err != nil {
				return nil, fmt.Errorf("pools of %s: %w", s.service, err)
			}
			m = madeChooser{s, plugin}
		}
		next[s.service] = m
		out = append(out, m.plugin)
	}
	b.choosers = next
	return out, nil
}

func chooserPlugin(s chooserSource) (*routev3.ClusterSpecifierPlugin, error) {
	m, err := chooser(s)
	if err != nil {
		return nil, err
	}
	specifier := &specifierv3.MatcherClusterSpecifier{ClusterMatcher: m}
	if err := specifier.ValidateAll(); err != nil {
		return nil, err
	}
	config, err := packed(specifier)
	if err != nil {
		return nil, err
	}
	return &routev3.ClusterSpecifierPlugin{Extension: &corev3.TypedExtensionConfig{Name: s.service, TypedConfig: config}}, nil
}

func chosenBy(service string) *routev3.RouteAction_ClusterSpecifierPlugin {
	return &routev3.RouteAction_ClusterSpecifierPlugin{ClusterSpecifierPlugin: service}
}

func chooser(s chooserSource) (*xdsmatcherv3.Matcher, error) {
	group, err := requestHeader(semconv.HeaderGroup)
	if err != nil {
		return nil, err
	}
	otherwise, err := cohortChooser(s, group)
	if err != nil {
		return nil, err
	}
	moved := make(map[string]*xdsmatcherv3.Matcher_OnMatch, len(s.places.moves))
	to := map[string]*xdsmatcherv3.Matcher_OnMatch{}
	for _, m := range s.places.moves {
		if to[m.Pool] == nil {
			if to[m.Pool], err = choose(s.service, m.Pool); err != nil {
				return nil, err
			}
		}
		moved[string(m.Group)] = to[m.Pool]
		if m.Home > 0 {
			if moved[string(m.Group)], err = released(m.Home, otherwise, to[m.Pool]); err != nil {
				return nil, err
			}
		}
	}
	if len(moved) == 0 {
		return otherwise, nil
	}
	return &xdsmatcherv3.Matcher{
		MatcherType: &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: &xdsmatcherv3.Matcher_MatcherTree{
			Input:    group,
			TreeType: &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{ExactMatchMap: &xdsmatcherv3.Matcher_MatcherTree_MatchMap{Map: moved}},
		}},
		OnNoMatch: &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Matcher{Matcher: otherwise}},
	}, nil
}

// released sends users whose place is below the share home, and the others of a group,
// and who is not known, where it was moved to.
func released(share uint32, home *xdsmatcherv3.Matcher, away *xdsmatcherv3.Matcher_OnMatch) (*xdsmatcherv3.Matcher_OnMatch, error) {
	place, err := requestHeader(semconv.HeaderPlace)
	if err != nil {
		return nil, err
	}
	below := &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{SafeRegex: &xdsmatcherv3.RegexMatcher{
		EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{}}, Regex: placesBelow(share),
	}}}
	return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Matcher{Matcher: &xdsmatcherv3.Matcher{
		MatcherType: &xdsmatcherv3.Matcher_MatcherList_{MatcherList: &xdsmatcherv3.Matcher_MatcherList{
			Matchers: []*xdsmatcherv3.Matcher_MatcherList_FieldMatcher{{
				Predicate: is(place, below),
				OnMatch:   &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Matcher{Matcher: home}},
			}},
		}},
		OnNoMatch: away,
	}}}, nil
}

// placesBelow matches places, which have two digits, below a share of 1 to 99.
func placesBelow(share uint32) string {
	var alternatives []string
	if tens := share / 10; tens > 0 {
		alternatives = append(alternatives, fmt.Sprintf("[0-%d][0-9]", tens-1))
	}
	if ones := share % 10; ones > 0 {
		alternatives = append(alternatives, fmt.Sprintf("%d[0-%d]", share/10, ones-1))
	}
	return strings.Join(alternatives, "|")
}

// cohortChooser is for groups that are not moved.
func cohortChooser(s chooserSource, group *xdscorev3.TypedExtensionConfig) (*xdsmatcherv3.Matcher, error) {
	traceparent, err := requestHeader(semconv.HeaderTraceparent)
	if err != nil {
		return nil, err
	}
	home, err := choose(s.service, baseline)
	if err != nil {
		return nil, err
	}
	out := &xdsmatcherv3.Matcher{OnNoMatch: home}
	var cohorts []*xdsmatcherv3.Matcher_MatcherList_FieldMatcher
	for _, c := range s.places.cohorts {
		to, err := choose(s.service, c.Pool)
		if err != nil {
			return nil, err
		}
		color := &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Prefix{Prefix: "00-" + c.Color.String()}}
		colored := &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{SafeRegex: &xdsmatcherv3.RegexMatcher{
			EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{}}, Regex: ".+",
		}}}
		cohorts = append(cohorts, &xdsmatcherv3.Matcher_MatcherList_FieldMatcher{
			Predicate: &xdsmatcherv3.Matcher_MatcherList_Predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_AndMatcher{
				AndMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList{
					Predicate: []*xdsmatcherv3.Matcher_MatcherList_Predicate{is(traceparent, color), is(group, colored)},
				},
			}},
			OnMatch: to,
		})
	}
	if len(cohorts) > 0 {
		out.MatcherType = &xdsmatcherv3.Matcher_MatcherList_{MatcherList: &xdsmatcherv3.Matcher_MatcherList{Matchers: cohorts}}
	}
	return out, nil
}

func is(input *xdscorev3.TypedExtensionConfig, m *xdsmatcherv3.StringMatcher) *xdsmatcherv3.Matcher_MatcherList_Predicate {
	return &xdsmatcherv3.Matcher_MatcherList_Predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input:   input,
			Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: m},
		},
	}}
}

func choose(service, pool string) (*xdsmatcherv3.Matcher_OnMatch, error) {
	action, err := extension("cluster", &specifierv3.ClusterAction{Cluster: plan.ClusterName(service, pool)})
	if err != nil {
		return nil, err
	}
	return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: action}}, nil
}

func requestHeader(name string) (*xdscorev3.TypedExtensionConfig, error) {
	return extension(name, &matcherv3.HttpRequestHeaderMatchInput{HeaderName: name})
}

func extension(name string, m proto.Message) (*xdscorev3.TypedExtensionConfig, error) {
	config, err := packed(m)
	if err != nil {
		return nil, err
	}
	return &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: config}, nil
}

package xds

import (
	"fmt"
	"net/http"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/xds/parts"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// hostSource is what the routes of a host are made from.
type hostSource struct {
	host       string // or pattern
	failClosed bool
	rules      []ruleSource
	base       []service      // none where a rule takes everything
	limits     []policy.Limit // where a rule names one
}

// ruleSource is what a rule's routes are made from.
type ruleSource struct {
	rule   *plan.Rule
	places places // of a canary
}

// configSource is what the route configuration is made from.
type configSource struct {
	host     hostSource // of requests that no other virtual host takes
	choosers []chooserSource
	retired  []string
	buffers  bool
	sheds    []plan.Shed
}

// routes is the route configuration: what all virtual hosts share, and the one for
// hosts that no rule names. The others come by VHDS, so that a rule that changes is a
// virtual host that is sent, and not all of them.
//
// Which pool serves is left to the services' choosers, so that a move or a cohort
// changes a table and no route. Envoy builds all routes anew whenever one changes, of
// whichever virtual host, so what a route costs there is what a change costs: what
// all share stands here or in the virtual host, and none is written twice ([retrySafe]).
func (b *Builder) routes(s configSource) (*routev3.RouteConfiguration, error) {
	rest, err := virtualHost(RoutesName, s.host)
	if err != nil {
		return nil, err
	}
	plugins, err := b.plugins(s.choosers, s.retired)
	if err != nil {
		return nil, err
	}
	out := &routev3.RouteConfiguration{
		Name:                RoutesName,
		VirtualHosts:        []*routev3.VirtualHost{rest},
		Vhds:                &routev3.Vhds{ConfigSource: ads()},
		RequestHeadersToAdd: []*corev3.HeaderValueOption{retrySafe(), via()},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{
			setHeader(semconv.HeaderGroup, "%REQ("+semconv.HeaderGroup+")%"),
			setHeader(semconv.HeaderTraceresponse, "%REQ("+semconv.HeaderTraceparent+")%"),
		},
		// A rule with retries of its own takes back what [retrySafe] said.
		MostSpecificHeaderMutationsWins: true,
		ClusterSpecifierPlugins:         plugins,
		IgnorePortInHostMatching:        true,
	}
	if s.buffers {
		out.TypedPerFilterConfig = idleBuffer()
	}
	if len(s.sheds) > 0 {
		if out.TypedPerFilterConfig == nil {
			out.TypedPerFilterConfig = map[string]*anypb.Any{}
		}
		limits, err := packed(shed(s.sheds))
		if err != nil {
			return nil, fmt.Errorf("limits of groups: %w", err)
		}
		out.TypedPerFilterConfig[rateLimitFilter] = limits
	}
	return out, nil
}

// hostName is the name of a host's virtual host and of its resource: Envoy takes a
// virtual host away by this name.
func hostName(host string) string { return RoutesName + "/" + host }

// virtualHost has the rules that may take a request for the host, then the routes of
// all services where one may pass them.
func virtualHost(name string, s hostSource) (*routev3.VirtualHost, error) {
	var out []*routev3.Route
	if s.failClosed {
		out = append(out, uncolored())
	}
	for _, r := range s.rules {
		routes, err := ruleRoutes(r, s.host, s.limits)
		if err != nil {
			return nil, err
		}
		out = append(out, routes...)
	}
	for _, svc := range s.base {
		out = append(out, serviceRoutes(svc)...)
	}
	return &routev3.VirtualHost{
		Name:        name,
		Domains:     []string{s.host},
		Routes:      out,
		RetryPolicy: retryPolicy(retryOnUnsent), // where a route has no other
		// Requests above this are not buffered for a retry; they are sent once.
		RequestBodyBufferLimit: wrapperspb.UInt64(64 << 10),
	}, nil
}

// serviceRoutes are what a service is asked for that no rule takes. WebSocket
// upgrades have a route of their own: no timeout, and only where the policy says so.
func serviceRoutes(s service) []*routev3.Route {
	var out []*routev3.Route
	add := func(r plan.Route, a *routev3.RouteAction, when ...*routev3.HeaderMatcher) {
		a.ClusterSpecifier = chosenBy(s.name)
		out = append(out, &routev3.Route{Name: r.Name, Match: match(r, when), Action: &routev3.Route_Route{Route: a}})
	}
	for _, r := range s.routes {
		if r.WebSocket {
			add(r, websocket(), isUpgrade())
		}
		a := &routev3.RouteAction{Timeout: durationpb.New(r.Timeout)}
		if r.GRPC {
			streamed(a)
		}
		add(r, a)
	}
	return out
}

// Retries. "Unsent" ones cannot have reached the application; a safe method
// (RFC 9110, 9.2.1) may be repeated after a reset as well.
const (
	retryOnUnsent = "connect-failure,refused-stream,reset-before-request"
	retryOnHeader = "x-envoy-retry-on"
	// With the back-off below: about two seconds, so that a process that is
	// restarted at once costs latency and no error.
	numRetries = 7
)

// retrySafe adds resets to what a safe method is repeated on. It is a request header
// for Envoy's router, which removes it; a client's own is gone by then. (Two routes,
// one for safe methods with a retry policy of its own, lost: they made Envoy take
// twice as long to build 3,000 rules.)
func retrySafe() *corev3.HeaderValueOption {
	return setHeader(retryOnHeader, "%CEL(request.method in ['GET', 'HEAD', 'OPTIONS'] ? 'reset' : '')%")
}

// via tells services which process of which edge a request came by. edge/envoy sets the
// variable.
func via() *corev3.HeaderValueOption {
	return setHeader(semconv.HeaderEdge, "%ENVIRONMENT("+parts.ViaVariable+")%")
}

func websocket() *routev3.RouteAction {
	return &routev3.RouteAction{
		Timeout:        durationpb.New(0),
		IdleTimeout:    durationpb.New(time.Hour), // core pings far more often
		UpgradeConfigs: []*routev3.RouteAction_UpgradeConfig{{UpgradeType: "websocket", Enabled: wrapperspb.Bool(true)}},
	}
}

// retryPolicy tries another host first and, where a pool has only one, the next
// priority: baseline takes over before the health check has noticed anything.
func retryPolicy(on string) *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    on,
		NumRetries: wrapperspb.UInt32(numRetries),
		RetryPriority: &routev3.RetryPolicy_RetryPriority{
			Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
				TypedConfig: mustPack(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 1}),
			},
		},
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: mustPack(&previoushostsv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: 3,
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: durationpb.New(50 * time.Millisecond),
			MaxInterval:  durationpb.New(time.Second),
		},
	}
}

func match(r plan.Route, headers []*routev3.HeaderMatcher) *routev3.RouteMatch {
	m := &routev3.RouteMatch{Headers: headers}
	switch {
	case r.Path != "":
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: r.Path}
	case r.Prefix == "/":
		m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	default:
		m.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: trimSlash(r.Prefix)}
	}
	return m
}

func trimSlash(prefix string) string {
	for len(prefix) > 1 && prefix[len(prefix)-1] == '/' {
		prefix = prefix[:len(prefix)-1]
	}
	return prefix
}

// uncolored answers for a filter that did not run, where the policy says closed.
// It stands in the routes and not only in the filter's failure policy, because a
// missing filter has no failure policy.
func uncolored() *routev3.Route {
	return &routev3.Route{
		Name: "uncolored",
		Match: &routev3.RouteMatch{
			PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"},
			Headers:       []*routev3.HeaderMatcher{isUncolored()},
		},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: http.StatusServiceUnavailable,
			Body:   &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "edge filter did not run"}},
		}},
	}
}

func isGroup(id group.ID) *routev3.HeaderMatcher {
	return header(semconv.HeaderGroup, exact(string(id)))
}

func isColored() *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name:                 semconv.HeaderGroup,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
	}
}

func isUncolored() *routev3.HeaderMatcher {
	m := isColored()
	m.InvertMatch = true
	return m
}

func isColor(c group.Color) *routev3.HeaderMatcher {
	return header(semconv.HeaderTraceparent, &matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "00-" + c.String()},
	})
}

func isUpgrade() *routev3.HeaderMatcher {
	m := exact("websocket")
	m.IgnoreCase = true
	return header("upgrade", m)
}

func exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func header(name string, m *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name:                 name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m},
	}
}

func setHeader(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// mustPack is for messages without a value from outside; they always marshal.
func mustPack(m proto.Message) *anypb.Any {
	a, err := packed(m)
	if err != nil {
		panic("xds: marshal a constant message: " + err.Error())
	}
	return a
}

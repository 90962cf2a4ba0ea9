package route_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/wasm/color"
	"github.com/tracegate/tracegate/wasm/route"
)

// record is a request's headers, and how many operations they took.
type record struct {
	headers map[string]string
	ops     []string
}

func (r *record) Set(name, value string) {
	r.headers[name] = value
	r.ops = append(r.ops, "set "+name)
}

func (r *record) Remove(name string) {
	delete(r.headers, name)
	r.ops = append(r.ops, "remove "+name)
}

const client = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestApply(t *testing.T) {
	baseline := string(group.Group{Env: "default", Tenant: "default"}.ID())
	const (
		ours    = "00-00000000050607080900000000000000-0000000000000001-03"
		baggage = "traffic.env=default,traffic.tenant=default"
	)
	tests := map[string]struct {
		headers map[string]string
		trusted bool
		want    map[string]string
		ops     []string
	}{
		"nothing said": {
			map[string]string{}, false,
			map[string]string{"x-traffic-group": baseline, "traceparent": ours, "baggage": baggage},
			[]string{"set x-traffic-group", "set traceparent", "set baggage"},
		},
		"a trace": {
			map[string]string{"traceparent": client}, false,
			map[string]string{"x-traffic-group": baseline, "traceparent": ours, "tracestate": "tg=0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "baggage": baggage},
			[]string{"set x-traffic-group", "set traceparent", "set tracestate", "set baggage"},
		},
		"a tracestate of nothing, and claims": {
			map[string]string{"tracestate": "a=b", "x-traffic-claims": "e30"}, false,
			map[string]string{"x-traffic-group": baseline, "traceparent": ours, "baggage": baggage},
			[]string{"set x-traffic-group", "set traceparent", "remove tracestate", "set baggage", "remove x-traffic-claims"},
		},
		"a user of a group that is released step by step": {
			map[string]string{"x-traffic-claims": "eyJzdWIiOiJhbm4ifQ"}, false,
			map[string]string{"x-traffic-group": baseline, "x-traffic-place": group.PlaceText(group.Place(group.ID(baseline), "ann")), "traceparent": ours, "baggage": baggage},
			[]string{"set x-traffic-group", "set x-traffic-place", "set traceparent", "set baggage", "remove x-traffic-claims"},
		},
		"a user of another group": {
			map[string]string{"x-traffic-claims": "eyJzdWIiOiJhbm4ifQ", "traceparent": client}, true,
			map[string]string{
				"x-traffic-group": string(group.Group{Color: 0x0af76519, Env: "default", Tenant: "default"}.ID()),
				"traceparent":     client, "baggage": baggage,
			},
			[]string{"set x-traffic-group", "set baggage", "remove x-traffic-claims"},
		},
		"a trusted peer": {
			map[string]string{"traceparent": client, "tracestate": "a=b", "baggage": baggage}, true,
			map[string]string{
				"x-traffic-group": string(group.Group{Color: 0x0af76519, Env: "default", Tenant: "default"}.ID()),
				"traceparent":     client, "tracestate": "a=b", "baggage": baggage,
			},
			[]string{"set x-traffic-group"},
		},
	}
	a, err := color.Compile(color.Policy{TrustedPeers: []string{"10.0.0.0/8"}, Releasing: []group.ID{group.ID(baseline)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := a.NewRequest()
			got := &record{headers: tt.headers}
			for k, v := range tt.headers {
				r.Add(k, v)
			}
			if tt.trusted {
				r.Peer = netip.MustParseAddr("10.0.0.1")
			}
			route.Apply(got, a.Assign(r, &color.Random{4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 23: 1}))
			if diff := cmp.Diff(tt.want, got.headers); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.ops, got.ops); diff != "" {
				t.Error(diff)
			}
		})
	}
}

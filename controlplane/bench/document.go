package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
)

// probed is the host whose rule changes, and what is asked for to see the change.
const (
	probed    = "host0.test"
	probePath = "/probe"
)

// pools are where the rule that changes sends to, in turn.
var pools = [2]string{"baseline", "isolated"}

// document is the operator's policy: each service has a host of its own with its
// rules, the last of which takes what no other does. to is what changes.
func document(s size, to string) []byte {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range s.services {
		fmt.Fprintf(&b, "  - name: s%d\n    routes: [{prefix: /s%d}]\n    pools:\n", i, i)
		seldom := ", healthCheck: {interval: 60s}" // a thousand clusters at twice a second are another measurement
		if i == 0 {
			seldom = ""
		}
		for _, p := range pools {
			fmt.Fprintf(&b, "      - {name: %s%s}\n", p, seldom)
		}
		b.WriteString("    rules:\n")
		for j := range s.rules {
			match, extra := fmt.Sprintf("{hosts: [host%d.test], prefix: /api/v1/r%d}", i, j), ""
			if j == s.rules-1 {
				match = fmt.Sprintf("{hosts: [host%d.test], prefix: /}", i)
			}
			if i == 0 && j == 0 {
				match, extra = "{hosts: ["+probed+"], path: "+probePath+"}", ", pool: "+to
			}
			fmt.Fprintf(&b, "      - {name: r%d, match: [%s], timeout: 30s%s}\n", j, match, extra)
		}
	}
	return []byte(b.String())
}

// makePlan is what the control plane does between a policy and its resources.
func makePlan(p policy.Policy, e policy.Endpoints, listen string) (plan.Plan, error) {
	p, _ = p.At(time.Now())
	return plan.Build(p, e, plan.Groups{}, plan.Edge{Listen: listen, Observe: "127.0.0.1:1"})
}

// endpoints are the same two upstreams for all services.
func endpoints(services int, upstreams string) policy.Endpoints {
	e := policy.Endpoints{Services: map[string]map[string][]string{}}
	ups := strings.Split(upstreams, ",")
	for i := range services {
		e.Services[fmt.Sprintf("s%d", i)] = map[string][]string{pools[0]: ups[:1], pools[1]: ups[1:]}
	}
	return e
}

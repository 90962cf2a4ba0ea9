package controlplane

import (
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/xds"
)

// clients is what gRPC clients are given. Nothing is rendered while none is connected.
type clients struct {
	renderer xds.Proxyless
	plan     *plan.Plan // the newest; nil until there is one
	served   *plan.Plan
	problem  string // why the newest is not served
}

// serveClients gives gRPC clients the newest plan. It does not wait for edges: a client
// that takes it late or not at all must not keep anything from them, nor they from it.
func (l *loop) serveClients() {
	c := &l.clients
	if c.plan == nil || c.plan == c.served || !l.edges.HasClients() {
		return
	}
	c.served = c.plan
	snapshot, err := c.renderer.Build(*c.plan)
	if err != nil {
		c.problem = err.Error()
		l.log.Error("no plan for gRPC clients, the one before goes on", "error", err)
		return
	}
	c.problem = ""
	l.edges.SetClients(snapshot)
}

// maxClientNacks bounds what status shows.
const maxClientNacks = 10

func (l *loop) showClients() *ctlapi.Clients {
	all := l.edges.Clients()
	if len(all) == 0 && l.clients.problem == "" {
		return nil
	}
	out := &ctlapi.Clients{Connected: len(all), Problem: l.clients.problem}
	for _, c := range all {
		if !c.InSync {
			out.Waiting++
		}
		for _, n := range c.Nacks {
			if len(out.Nacks) < maxClientNacks {
				out.Nacks = append(out.Nacks, ctlapi.ClientNack{Client: c.ID, Nack: wireNack(n)})
			}
		}
	}
	return out
}

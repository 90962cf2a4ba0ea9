package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
)

// Clusters are the endpoints of this cluster, with those of others as backups: they serve
// where none of a pool's own does, and edges hold them beforehand, so nobody has to be
// asked when a cluster is cut off.
//
// A cluster that does not answer keeps the endpoints it had, which Lost says: edges find
// out themselves which of them answer. Nothing is sent before this cluster was heard of,
// or every edge would send its requests elsewhere whenever a control plane starts.
type Clusters struct {
	Own    Endpoints
	Others []Other
}

// Other is another cluster.
type Other struct {
	Name string // for errors
	Endpoints
}

// heard is what one cluster said.
type heard struct {
	cluster int // 0 is our own
	update  source.Update[policy.Endpoints]
}

// Run sends a set at first, and whenever it has changed, until ctx is done.
func (c Clusters) Run(ctx context.Context, out chan<- source.Update[policy.Endpoints]) error {
	work, ctx := errgroup.WithContext(ctx)
	all := make(chan heard)
	for i, e := range c.endpoints() {
		updates := make(chan source.Update[policy.Endpoints])
		work.Go(func() error { return e.Run(ctx, updates) })
		work.Go(func() error {
			for {
				select {
				case u := <-updates:
					select {
					case all <- heard{i, u}:
					case <-ctx.Done():
						return nil
					}
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	work.Go(func() error {
		last := make([]source.Update[policy.Endpoints], len(c.Others)+1)
		for {
			select {
			case h := <-all:
				last[h.cluster] = take(last[h.cluster], h.update)
			case <-ctx.Done():
				return nil
			}
			if last[0].Raw == nil && last[0].Err == nil {
				continue
			}
			select {
			case out <- c.merge(last):
			case <-ctx.Done():
				return nil
			}
		}
	})
	return work.Wait()
}

func (c Clusters) endpoints() []Endpoints {
	out := []Endpoints{c.Own}
	for _, o := range c.Others {
		out = append(out, o.Endpoints)
	}
	return out
}

// take keeps the last value where there is only an error; both are set then.
func take(last, next source.Update[policy.Endpoints]) source.Update[policy.Endpoints] {
	if next.Err != nil {
		last.Err = next.Err
		return last
	}
	return next
}

// merge is a pure function of what each cluster said last.
func (c Clusters) merge(last []source.Update[policy.Endpoints]) source.Update[policy.Endpoints] {
	out := source.Update[policy.Endpoints]{Value: policy.Endpoints{Services: last[0].Value.Services, Zones: maps.Clone(last[0].Value.Zones)}}
	if err := last[0].Err; err != nil {
		out.Lost = append(out.Lost, "this cluster: "+err.Error())
	}
	for i, o := range c.Others {
		u := last[i+1]
		if u.Err != nil {
			out.Lost = append(out.Lost, "cluster "+o.Name+": "+u.Err.Error())
		}
		for service, pools := range u.Value.Services {
			for pool, addrs := range pools {
				out.Value.Backup = with(out.Value.Backup, service, pool, addrs)
			}
		}
		for zone, addrs := range u.Value.Zones {
			if out.Value.Zones == nil {
				out.Value.Zones = map[string][]string{}
			}
			out.Value.Zones[zone] = union(out.Value.Zones[zone], addrs)
		}
	}
	raw, err := yaml.Marshal(out.Value)
	if err != nil {
		return source.Update[policy.Endpoints]{Err: fmt.Errorf("write endpoints: %w", err)}
	}
	// The same checks as of a file: clusters that use the same addresses are found here.
	if _, err := policy.ParseEndpoints(raw); err != nil {
		return source.Update[policy.Endpoints]{Err: fmt.Errorf("endpoints of all clusters: %w", err)}
	}
	out.Raw = raw
	return out
}

func with(services map[string]map[string][]string, service, pool string, addrs []string) map[string]map[string][]string {
	if services == nil {
		services = map[string]map[string][]string{}
	}
	if services[service] == nil {
		services[service] = map[string][]string{}
	}
	services[service][pool] = union(services[service][pool], addrs)
	return services
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

package source

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/discovery"
)

// Registry is the endpoints that processes have registered in etcd (mesh/discovery).
//
// While etcd is away, and for Grace after it has come back, what was there stays: leases
// may have ended meanwhile, and their processes need a moment to register anew. A registry
// in which nobody is any more changes nothing either. Both are said by Lost.
type Registry struct {
	Etcd  EtcdPrefix
	Grace time.Duration // longer than a lease and a registration's retry
}

// Run sends the endpoints, and every change of them or of what is lost, until ctx is done.
func (r Registry) Run(ctx context.Context, out chan<- Update[policy.Endpoints]) error {
	type reading struct {
		keys []string
		away error
	}
	readings, ended := make(chan reading), make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hand := func(now reading) error {
		select {
		case readings <- now:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	go func() {
		ended <- r.Etcd.Run(ctx, func(have map[string][]byte) error {
			return hand(reading{keys: slices.Collect(maps.Keys(have))})
		}, func(err error) { _ = hand(reading{away: err}) })
	}()
	grace := time.NewTimer(0)
	defer grace.Stop()
	<-grace.C

	var now, kept []string // what is registered; what was when etcd went, while that counts
	var last []string      // what was sent
	var sent string
	var away error
	for {
		// What can happen: etcd says what is there, or is away; the grace is over; the end.
		select {
		case n := <-readings:
			switch {
			case n.away != nil:
				kept, away = union(now, kept), n.away
			case away != nil:
				now, away = n.keys, nil
				grace.Reset(r.Grace)
			default:
				now = n.keys
			}
		case <-grace.C:
			if away == nil {
				kept = nil
			}
		case <-ctx.Done():
			return <-ended
		}
		all := registered(r.Etcd.Prefix, union(now, kept))
		lost := away
		switch {
		case len(all) > 0:
			last = all
		case len(last) == 0:
			continue
		case lost == nil: // never nothing for something
			lost = errors.New("nobody is registered any more")
		}
		u := r.update(last, lost)
		if text := u.text(); text != sent {
			sent = text
			select {
			case out <- u:
			case <-ctx.Done():
				return <-ended
			}
		}
	}
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// registered are the keys that can be somebody's.
func registered(prefix string, keys []string) []string {
	return slices.DeleteFunc(keys, func(key string) bool {
		_, _, addr, ok := discovery.Parse(prefix, key)
		_, err := netip.ParseAddrPort(addr)
		return !ok || err != nil
	})
}

func (r Registry) update(keys []string, away error) Update[policy.Endpoints] {
	e := policy.Endpoints{Services: map[string]map[string][]string{}}
	for _, key := range keys {
		service, pool, addr, _ := discovery.Parse(r.Etcd.Prefix, key)
		if e.Services[service] == nil {
			e.Services[service] = map[string][]string{}
		}
		e.Services[service][pool] = append(e.Services[service][pool], addr)
	}
	u := Update[policy.Endpoints]{}
	if away != nil {
		u.Lost = []string{"etcd: " + away.Error()}
	}
	if u.Raw, u.Err = yaml.Marshal(e); u.Err == nil {
		u.Value, u.Err = policy.ParseEndpoints(u.Raw)
	}
	return u
}

package source

import (
	"context"
	"errors"
	"maps"
	"net"
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
//
// A process that is killed leaves when nobody listens at its address any more and another
// of its pool is there ([listeners]): etcd knows it only when its lease ends, two seconds
// later. (To dial all addresses again and again lost: it is as late as its period, and
// takes a connection for each of them each time.)
type Registry struct {
	Etcd  EtcdPrefix
	Grace time.Duration                                            // longer than a lease and a registration's retry
	Dial  func(ctx context.Context, addr string) (net.Conn, error) // an address of a process; nil: leases alone count
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

	alive := newListeners(r.Dial)
	defer alive.work.Wait()
	defer cancel()            // before that
	gone := map[string]bool{} // addresses where nobody listens
	warned := false

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
		case l := <-alive.said:
			if !alive.current(l) {
				continue
			}
			if gone[l.addr] = l.gone; l.gone {
				r.Etcd.Log.Warn("nobody listens any more where a process is registered", "addr", l.addr)
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
		if r.Dial != nil {
			addrs := r.addresses(last)
			maps.DeleteFunc(gone, func(addr string, _ bool) bool { return !addrs[addr] })
			if over := alive.watch(ctx, addrs); over > 0 && !warned {
				warned = true
				r.Etcd.Log.Warn("more processes than are watched: one of the others that is killed leaves with its lease", "watched", maxListened, "others", over)
			}
		}
		u := r.update(r.listened(last, gone), lost)
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

func (r Registry) addresses(keys []string) map[string]bool {
	out := map[string]bool{}
	for _, key := range keys {
		_, _, addr, _ := discovery.Parse(r.Etcd.Prefix, key)
		out[addr] = true
	}
	return out
}

// listened are the keys without those where nobody listens; of a pool where nobody does
// anywhere, all: that is for health checks to say.
func (r Registry) listened(keys []string, gone map[string]bool) []string {
	there := map[string]bool{} // pools
	pool := func(key string) (pool, addr string) {
		service, name, addr, _ := discovery.Parse(r.Etcd.Prefix, key)
		return service + "/" + name, addr
	}
	for _, key := range keys {
		p, addr := pool(key)
		there[p] = there[p] || !gone[addr]
	}
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
		p, addr := pool(key)
		return gone[addr] && there[p]
	})
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

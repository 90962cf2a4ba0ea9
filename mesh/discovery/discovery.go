// Package discovery has a process say in etcd where it serves, for as long as it lives:
// PREFIX/SERVICE/POOL/ADDRESS is there under a lease that the process keeps alive.
//
// A clean stop takes the key away at once. After a kill it goes when its lease ends: etcd
// grants no lease shorter than its election timeout times one and a half, rounded up to
// seconds, which is 2 s as etcd comes. (To take it away when the process' connection to
// etcd ends lost: etcd has no such thing, and a client that connects anew would go and
// come.)
//
// Nobody waits for that. The control plane holds a connection to each process, which its
// kernel ends with it, and takes out who then refuses others (controlplane/source): some
// 200 ms after a kill. That an address does not answer says nothing, nor that it refuses who
// never reached it: only edges know what edges reach. A machine that goes without a word
// leaves with the leases of its processes. Envoy's health checks find a process that refuses
// connections within a second by themselves, and outlier detection finds it at the third
// connection that fails; what was sent until then goes to another instance
// (controlplane/xds; edge/e2e tests it).
//
// Its users are main, for services, and controlplane/source, which reads.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Registration is one process of one pool.
type Registration struct {
	Client  *clientv3.Client
	Prefix  string // "/discovery"
	Service string
	Pool    string
	Addr    string        // IP address and port that edges reach it by
	TTL     time.Duration // of the lease, whole seconds; etcd may grant a longer one
	Retry   time.Duration // before another lease is asked for
	Log     *slog.Logger
}

// Key is where the process stands.
func (r Registration) Key() string { return path.Join(r.Prefix, r.Service, r.Pool, r.Addr) }

// Parse takes a key apart that stands below prefix.
func Parse(prefix, key string) (service, pool, addr string, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix+"/")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return "", "", "", false
	}
	return parts[0], parts[1], parts[2], true
}

// Run keeps the process registered until ctx is done, and takes it away then. A lease
// that is lost, because etcd was away for longer than it lasts, is asked for again.
func (r Registration) Run(ctx context.Context) error {
	away := false
	for ctx.Err() == nil {
		err := r.hold(ctx, func() {
			r.Log.Info("registered for discovery", "key", r.Key())
			away = false
		})
		if ctx.Err() != nil {
			break
		}
		if !away {
			r.Log.Warn("not registered for discovery, trying again", "key", r.Key(), "error", err)
			away = true
		}
		select {
		case <-time.After(r.Retry):
		case <-ctx.Done():
		}
	}
	return nil
}

// hold registers under one lease until that or ctx ends.
func (r Registration) hold(ctx context.Context, registered func()) error {
	try, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	lease, err := r.Client.Grant(try, int64(max(r.TTL.Seconds(), 1)))
	if err != nil {
		return fmt.Errorf("ask for lease: %w", err)
	}
	defer func() {
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer stop()
		_, _ = r.Client.Revoke(last, lease.ID) // where that does not work it ends by itself
	}()
	if _, err := r.Client.Put(try, r.Key(), "", clientv3.WithLease(lease.ID)); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	alive, err := r.Client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return fmt.Errorf("keep lease alive: %w", err)
	}
	registered()
	for range alive { // the client asks; the channel ends with the lease
	}
	return errors.New("the lease has ended")
}

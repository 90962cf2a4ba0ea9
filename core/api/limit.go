package api

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tracegate/tracegate/core/bucket"
	"github.com/tracegate/tracegate/core/protocol"
)

// limiter keeps a token bucket for each key, for a bounded number of keys: when there
// are more, full buckets are forgotten, and then any.
type limiter struct {
	rate atomic.Pointer[Rate] // may be replaced at any time

	mu      sync.Mutex
	buckets map[string]bucket.Bucket
}

const maxBuckets = 50_000

func newLimiter(r Rate) *limiter {
	l := &limiter{buckets: map[string]bucket.Bucket{}}
	l.rate.Store(&r)
	return l
}

func (l *limiter) allow(key string, now time.Time) bool {
	rate := l.rate.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.buckets[key]
	if !known && len(l.buckets) >= maxBuckets {
		l.forget(now)
	}
	ok := b.Take(now, rate.PerSecond, rate.Burst)
	l.buckets[key] = b
	return ok
}

// forget makes room: a bucket that is full again says nothing.
func (l *limiter) forget(now time.Time) {
	looked := 0
	for key, b := range l.buckets { // Go starts anywhere
		if b.Full(now) || looked > 64 {
			delete(l.buckets, key)
		}
		if looked++; looked > 128 {
			return
		}
	}
}

func (s *server) limit(l *limiter, name, key string) error {
	if l.allow(key, s.deps.Now()) {
		return nil
	}
	s.metrics.limited.WithLabelValues(name).Inc()
	return protocol.NewError(protocol.CodeRateLimited, "", "too many requests")
}

// limitAll is limit for all processes together. While the shared buckets cannot be asked,
// this process's own decide.
func (s *server) limitAll(ctx context.Context, l *limiter, name, key string) error {
	if err := s.limit(l, name, key); err != nil {
		return err
	}
	rate := l.rate.Load()
	ok, err := s.deps.Limits.Take(ctx, name+":"+key, rate.PerSecond, rate.Burst)
	switch {
	case err != nil:
		s.metrics.unshared.Inc()
	case !ok:
		s.metrics.limited.WithLabelValues(name).Inc()
		return protocol.NewError(protocol.CodeRateLimited, "", "too many requests")
	}
	return nil
}

// address is the client's, as limits know it: the peer's, or what a trusted proxy says its
// peer was.
func (s *server) address(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	addr := peer.Addr().Unmap()
	for _, p := range s.cfg.TrustedProxies {
		if !p.Contains(addr) {
			continue
		}
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if said, err := netip.ParseAddr(strings.TrimSpace(hops[len(hops)-1])); err == nil {
			return network(said.Unmap()) // the last hop: the ones before it are the client's own words
		}
	}
	return network(addr)
}

// network is an address as far as it says who it is: whoever has one of IPv6 has the 2^64
// that begin as it does.
func network(addr netip.Addr) string {
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String()
}

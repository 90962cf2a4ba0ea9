package main

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/gauge"
	"github.com/tracegate/tracegate/mesh/local"
	"github.com/tracegate/tracegate/mesh/scale"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

const (
	// scaleLead is how far ahead a pool's rate is forecast, scaleWindow of how long it is
	// measured, and scaleDelay how long telemetry may be on its way.
	scaleLead   = 10 * time.Second
	scaleWindow = 2 * time.Second
	scaleDelay  = 500 * time.Millisecond
	// scaleStale is how old telemetry may be: then nothing is changed.
	scaleStale = 5 * time.Second
	// scaleLeave is what pods have between their end and SIGTERM, too.
	scaleLeave = 2 * time.Second
)

// stay keeps everything as it is but for pools whose number of processes follows their rate.
func (u *up) stay(ctx, kill context.Context, s *local.Supervisor, in installed) error {
	if !slices.ContainsFunc(u.cfg.Core.Pools, func(p PoolConfig) bool { return p.Max > 1 }) {
		return u.ready(ctx)
	}
	traces, err := openStore(u.cfg)
	if err != nil {
		return err
	}
	defer traces.Close()
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return u.ready(ctx) })
	var mu sync.Mutex
	scaled := map[string][]string{}
	for _, p := range u.cfg.Core.Pools {
		if p.Max < 2 {
			continue
		}
		scaler := scale.New(scale.Target{PerInstance: p.QPS, Min: 1, Max: p.Max, Lead: scaleLead}, u.cfg.Core.ScaleIn)
		fleet := local.Fleet{
			Fixed: []string{p.Listen}, Leave: scaleLeave, Log: u.log.With("pool", p.Name),
			Make: func(n int) (local.Instance, error) { return u.moreCore(in, p, n) },
			Want: func(ctx context.Context, has int) int {
				rate, known := poolRate(ctx, traces, p.Name, time.Now())
				return scaler.Next(rate, known, has, time.Now())
			},
			Serve: func(addrs []string) error {
				mu.Lock()
				defer mu.Unlock()
				scaled[p.Name] = addrs
				return u.writeEndpoints(scaled)
			},
		}
		work.Go(func() error { return fleet.Run(ctx, kill, s) })
	}
	return work.Wait()
}

// poolRate is requests a second of a pool of core; known is false where telemetry is stale.
func poolRate(ctx context.Context, traces *store.Store, pool string, now time.Time) (rate float64, known bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	until, err := traces.Watermark(ctx)
	if err != nil {
		return 0, false
	}
	to := now.Add(-scaleDelay)
	w := sli.Window{From: to.Add(-scaleWindow), To: to}
	stats, err := traces.GroupStats(ctx, w)
	if err != nil {
		return 0, false
	}
	var requests uint64
	for _, s := range stats {
		if s.Newest.After(until) {
			until = s.Newest
		}
		if s.Service == semconv.ServiceCore && s.Pool == pool {
			requests += s.Requests
		}
	}
	return float64(requests) / scaleWindow.Seconds(), now.Sub(until) <= scaleStale
}

// moreCore is one more process of a pool, on addresses that nobody listens on.
func (u *up) moreCore(in installed, p PoolConfig, n int) (local.Instance, error) {
	listen, err := beside(p.Listen)
	if err != nil {
		return local.Instance{}, err
	}
	admin, err := beside(p.Admin)
	if err != nil {
		return local.Instance{}, err
	}
	args := []string{in.self, "core", "--pool", p.Name, "--listen", listen, "--admin", admin}
	return local.Instance{
		Addr: listen,
		Part: local.Part{
			Name: corePart(p.Name) + "-" + strconv.Itoa(n+2), Argv: append(args, u.opts.arguments(u.cfg)...),
			Ready: readyz(in.client, admin), Stop: u.cfg.Core.Drain + 15*time.Second + drainGrace,
		},
		Connections: func(ctx context.Context) (float64, error) { return gauge.Read(ctx, in.client, admin, "core_sockets") },
	}, nil
}

// beside is a free address on the host of another.
func beside(addr string) (string, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	return freeport.On(host)
}

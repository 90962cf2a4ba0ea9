package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/local"
	"github.com/tracegate/tracegate/mesh/scale"
)

// The load: 100 requests a second, within ten seconds 2,000, which stay.
const (
	rampFrom, rampTo = 100, 2000
	rampQuiet        = 12 * time.Second
	rampRise         = 10 * time.Second
	rampStay         = 20 * time.Second
	// One process serves 250 requests a second, one after the other, and lets a hundred
	// wait. It is meant to get 200.
	serverWork  = 4 * time.Millisecond
	serverQueue = 100
	serverQPS   = 200
	serverMax   = 15

	instanceHeader = "x-instance"
)

// beServer serves with a bounded speed until its parent wants, or has ended.
func beServer(ctx context.Context, addr string) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); end() }() // ends with the process
	waiting, turn := make(chan struct{}, serverQueue), make(chan struct{}, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case waiting <- struct{}{}:
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer func() { <-waiting }()
		turn <- struct{}{}
		work := time.NewTimer(serverWork)
		<-work.C
		<-turn
		w.Header().Set(instanceHeader, addr)
	})
	server := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Shutdown(context.WithoutCancel(ctx)) })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// way is how a pool is scaled.
type way struct {
	lead  time.Duration // of the forecast
	every time.Duration // between two measurements, and decisions
}

// ride is what clients saw of one way, from the start of the ramp on.
type ride struct {
	sent, failed int
	took         []time.Duration // of those that were answered, sorted
	first        time.Duration   // from the metric, which says that one process is not enough, to the first answer of another
	processes    int             // at the end
}

func ramp(ctx context.Context, c config, dir string, log *slog.Logger) (result, error) {
	binary, err := envoy.Find(ctx, c.envoy, "", log)
	if err != nil {
		return nil, err
	}
	var r rampReport
	for name, w := range map[string]way{"ours": {10 * time.Second, 250 * time.Millisecond}, "stock": {0, stockEvery}} {
		out, err := rideOnce(ctx, binary, filepath.Join(dir, name), w, log)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if name == "ours" {
			r.ours = out
		} else {
			r.stock = out
		}
	}
	return r, nil
}

// rideOnce runs Envoy, a control plane and a fleet of processes under the ramp.
func rideOnce(ctx context.Context, binary, dir string, w way, log *slog.Logger) (out ride, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return out, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	first, err := freeport.On("127.0.0.1")
	if err != nil {
		return out, err
	}
	endpoints := make(chan source.Update[policy.Endpoints], 1)
	serve := func(addrs []string) error {
		raw := "services: {core: {baseline: [\"" + strings.Join(addrs, `", "`) + "\"]}}\n"
		value, err := policy.ParseEndpoints([]byte(raw))
		if err != nil {
			return err
		}
		select {
		case endpoints <- source.Update[policy.Endpoints]{Value: value, Raw: []byte(raw)}:
		case <-ctx.Done():
		}
		return nil
	}
	if err := serve([]string{first}); err != nil {
		return out, err
	}
	from := func(ctx context.Context, to chan<- source.Update[policy.Endpoints]) error {
		for {
			select {
			case u := <-endpoints:
				select {
				case to <- u:
				case <-ctx.Done():
					return nil
				}
			case <-ctx.Done():
				return nil
			}
		}
	}
	p, err := startPlane(ctx, binary, filepath.Join(dir, "plane"), failoverPolicy, from, &rates{by: map[string]uint64{}}, log)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, p.close()) }()

	part, err := serverPart("server-1", first)
	if err != nil {
		return out, err
	}
	s, err := local.New(local.DefaultConfig(), [][]local.Part{{part}}, log)
	if err != nil {
		return out, err
	}
	l := &rampLoad{url: "http://" + p.cfg.Edge.Listen, first: first}
	scaler := scale.New(scale.Target{PerInstance: serverQPS, Min: 1, Max: serverMax, Lead: w.lead}, time.Minute)
	var last time.Time
	var want int
	fleet := local.Fleet{
		Fixed: []string{first}, Serve: serve, Leave: time.Second, Log: log,
		Want: func(_ context.Context, has int) int {
			if now := time.Now(); now.Sub(last) >= w.every {
				last, want = now, scaler.Next(l.measured(now), true, has, now)
			}
			return max(want, 1)
		},
		Make: func(n int) (local.Instance, error) {
			addr, err := freeport.On("127.0.0.1")
			if err != nil {
				return local.Instance{}, err
			}
			part, err := serverPart("server-"+strconv.Itoa(n+2), addr)
			return local.Instance{Part: part, Addr: addr}, err
		},
	}
	err = s.Run(ctx, context.WithoutCancel(ctx), func(ctx context.Context) error {
		work, ctx := errgroup.WithContext(ctx)
		work.Go(func() error { return fleet.Run(ctx, context.WithoutCancel(ctx), s) })
		work.Go(func() error {
			defer stop()
			if err := answers(ctx, l.url); err != nil {
				return err
			}
			out = l.run(ctx)
			out.processes = want
			return nil
		})
		return work.Wait()
	})
	return out, err
}

func serverPart(name, addr string) (local.Part, error) {
	self, err := os.Executable()
	if err != nil {
		return local.Part{}, err
	}
	return local.Part{
		Name: name, Argv: []string{self, "-serve", addr}, Stop: 5 * time.Second,
		Ready: func(ctx context.Context) error { return answer(ctx, "http://"+addr+"/healthz") },
	}, nil
}

func answer(ctx context.Context, url string) error {
	web := &http.Client{Timeout: 2 * time.Second}
	defer web.CloseIdleConnections()
	return ask(ctx, web, http.MethodGet, url)
}

func answers(ctx context.Context, url string) error {
	_, err := until(ctx, "edge answers", time.Minute, func() (bool, error) { return answer(ctx, url) == nil, nil })
	return err
}

// rampLoad sends, and measures as telemetry does: two seconds that ended half a second ago.
type rampLoad struct {
	url, first string

	mu      sync.Mutex
	sent    []time.Time
	crossed time.Time // since when the metric says that one process is not enough
	other   time.Time // first answer of another process
	took    []time.Duration
	failed  atomic.Int64
}

func (l *rampLoad) measured(now time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := now.Add(-500 * time.Millisecond)
	from := to.Add(-2 * time.Second)
	n := 0
	for i := len(l.sent) - 1; i >= 0 && l.sent[i].After(from); i-- {
		if !l.sent[i].After(to) {
			n++
		}
	}
	return float64(n) / 2
}

// run sends the load and returns what became of it.
func (l *rampLoad) run(ctx context.Context) (out ride) {
	web := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4000}}
	defer web.CloseIdleConnections()
	var open sync.WaitGroup
	begin := time.Now()
	due := 0.0
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for last := begin; ctx.Err() == nil; {
		now := <-tick.C
		since := now.Sub(begin)
		if since > rampQuiet+rampRise+rampStay {
			break
		}
		rise := min(max(float64(since-rampQuiet)/float64(rampRise), 0), 1)
		due += (rampFrom + rise*(rampTo-rampFrom)) * now.Sub(last).Seconds()
		last = now
		for ; due >= 1; due-- {
			counts := since >= rampQuiet
			if counts {
				out.sent++
			}
			open.Go(func() { l.send(ctx, web, counts) })
		}
		l.watch(now)
	}
	open.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.took)
	out.took, out.failed = l.took, int(l.failed.Load())
	if !l.other.IsZero() && !l.crossed.IsZero() {
		out.first = l.other.Sub(l.crossed)
	}
	return out
}

// watch notes when the metric crosses what one process shall get.
func (l *rampLoad) watch(now time.Time) {
	over := l.measured(now) > serverQPS
	l.mu.Lock()
	defer l.mu.Unlock()
	if over && l.crossed.IsZero() {
		l.crossed = now
	}
}

func (l *rampLoad) send(ctx context.Context, web *http.Client, counts bool) {
	start := time.Now()
	l.mu.Lock()
	l.sent = append(l.sent, start)
	l.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, http.NoBody)
	if err != nil {
		return
	}
	resp, err := web.Do(req)
	ok := err == nil && resp.StatusCode == http.StatusOK
	by := ""
	if err == nil {
		by = resp.Header.Get(instanceHeader)
		resp.Body.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if by != "" && by != l.first && l.other.IsZero() {
		l.other = time.Now()
	}
	switch {
	case !counts:
	case ok:
		l.took = append(l.took, time.Since(start))
	default:
		l.failed.Add(1)
	}
}

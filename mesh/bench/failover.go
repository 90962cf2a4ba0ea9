package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tracegate/tracegate/controlplane/source/kubernetes"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/kubetest"
)

const failoverPolicy = `
color: {env: prod, tenant: public}
services:
  - name: core
    pools: [{name: baseline}]
    routes: [{name: /, prefix: /}]
decide: {mode: observe}
`

const (
	loadEvery  = 10 * time.Millisecond // between two requests to each edge
	slow       = time.Second           // a request that takes longer counts as not served yet
	settleTime = 15 * time.Second      // after a cut, and after it is mended
)

// region is a cluster with its API server, a control plane that reads it and the other
// one, an edge, and pods: here a server behind a gate that can be shut.
type region struct {
	name  string
	kube  *kubetest.Cluster
	gate  *gate
	plane *plane
}

// failover cuts off the first of two regions, its API server, control plane and pods, and
// mends it again. Both edges live on, and both have load.
func failover(ctx context.Context, c config, dir string, log *slog.Logger) (_ result, err error) {
	binary, err := envoy.Find(ctx, c.envoy, "", log)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	regions, closeAll, err := startRegions(ctx, binary, dir, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	var report failoverReport
	for range c.runs {
		once, err := cutOnce(ctx, regions)
		if err != nil {
			return nil, err
		}
		report = append(report, once)
	}
	return report, nil
}

// startRegions starts two regions, each of which knows the other's pods too. What it has
// started is closed by closeAll, and by itself where it fails.
func startRegions(ctx context.Context, binary, dir string, log *slog.Logger) (regions [2]*region, closeAll func() error, err error) {
	var ends []func() error
	closeAll = func() (err error) {
		for _, end := range slices.Backward(ends) {
			err = errors.Join(err, end())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	for i, name := range []string{"west", "east"} {
		r := &region{name: name}
		regions[i] = r
		if r.kube, err = kubetest.Start(ctx, kubetest.Config{}, filepath.Join(dir, name), log); err != nil {
			return regions, nil, err
		}
		ends = append(ends, func() error { r.kube.Close(); return nil })
		if r.gate, err = openGate(name); err != nil {
			return regions, nil, err
		}
		ends = append(ends, func() error { r.gate.close(); return nil })
		if err := r.addPods(ctx); err != nil {
			return regions, nil, err
		}
	}
	for i, r := range regions {
		other := regions[1-i]
		from := kubernetes.Clusters{
			Own:    kubernetes.Endpoints{Cluster: r.kube.Admin(), Namespace: "default", Log: log},
			Others: []kubernetes.Other{{Name: other.name, Endpoints: kubernetes.Endpoints{Cluster: other.kube.Admin(), Namespace: "default", Log: log}}},
		}
		r.plane, err = startPlane(ctx, binary, filepath.Join(dir, r.name, "plane"), failoverPolicy, from.Run, &rates{by: map[string]uint64{}}, log)
		if err != nil {
			return regions, nil, err
		}
		ends = append(ends, r.plane.close)
	}
	return regions, closeAll, nil
}

// shut cuts the region off.
func (r *region) shut() error {
	r.gate.shut()
	r.kube.StopAPIServer()
	return r.plane.end()
}

// mend ends that.
func (r *region) mend(ctx context.Context) error {
	r.gate.open()
	if err := r.kube.StartAPIServer(ctx); err != nil {
		return err
	}
	r.plane.start(ctx)
	return nil
}

// cut is what one partition did to the requests at each edge.
type cut struct {
	away, back [2]damage // west, which is cut off, and east; until it is mended, and afterwards
}

// damage is what clients of one edge saw.
type damage struct {
	sent, lost int
	writes     int           // of lost, those that may not be sent twice
	until      time.Duration // the last request that was lost or slow was sent so long after
}

func cutOnce(ctx context.Context, regions [2]*region) (c cut, err error) {
	west := regions[0]
	for _, r := range regions {
		if err := r.servedBy(ctx, r.name); err != nil {
			return c, err
		}
	}
	var loads [2]*load
	for i, r := range regions {
		loads[i] = startLoad(ctx, "http://"+r.plane.cfg.Edge.Listen)
		defer loads[i].stop()
	}
	measure := func(change func() error, into *[2]damage) error {
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		for _, l := range loads {
			l.take()
		}
		at := time.Now()
		if err := change(); err != nil {
			return err
		}
		if err := pause(ctx, settleTime); err != nil {
			return err
		}
		for i, l := range loads {
			into[i] = assess(l.take(), at)
		}
		return nil
	}
	if err := measure(west.shut, &c.away); err != nil {
		return c, err
	}
	err = measure(func() error { return west.mend(ctx) }, &c.back)
	return c, err
}

// assess is a pure function of the requests that were sent after a moment.
func assess(all []request, from time.Time) (d damage) {
	for _, r := range all {
		if r.sent.Before(from.Add(-slow)) {
			continue
		}
		d.sent++
		if r.failed {
			d.lost++
			if r.write {
				d.writes++
			}
		}
		if r.failed || r.took > slow {
			d.until = max(d.until, r.sent.Sub(from))
		}
	}
	return d
}

// servedBy waits until the region's edge is served by a region's pods.
func (r *region) servedBy(ctx context.Context, region string) error {
	web := &http.Client{Timeout: 2 * time.Second}
	defer web.CloseIdleConnections()
	_, err := until(ctx, "edge of "+r.name+" is served by "+region, time.Minute, func() (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.plane.cfg.Edge.Listen+"/", http.NoBody)
		if err != nil {
			return false, err
		}
		resp, err := web.Do(req)
		if err != nil {
			return false, nil // it is not there yet
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK && resp.Header.Get(regionHeader) == region, nil
	})
	return err
}

// addPods tells the cluster of the gate as of a pod.
func (r *region) addPods(ctx context.Context) error {
	c, err := r.kube.Client()
	if err != nil {
		return err
	}
	yes, name, port := true, "http", int32(r.gate.addr.Port())
	_, err = c.DiscoveryV1().EndpointSlices("default").Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "core", Labels: map[string]string{v1alpha1.Group + "/service": "core", v1alpha1.Group + "/pool": "baseline"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{r.gate.addr.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}}},
	}, metav1.CreateOptions{})
	return err
}

const regionHeader = "x-region"

// gate is a server that can be cut off as a partition does it: what is open stays open,
// and nothing passes any more.
type gate struct {
	addr   netip.AddrPort
	server *http.Server
	lis    net.Listener
	mu     sync.Mutex
	closed chan struct{} // is there while the gate is shut, and closed when it opens
}

// openGate listens on an address of this machine that is not loopback: a cluster refuses
// such endpoints.
func openGate(name string) (*gate, error) {
	ip, err := ownAddress()
	if err != nil {
		return nil, err
	}
	g := &gate{}
	if g.lis, err = net.Listen("tcp", net.JoinHostPort(ip, "0")); err != nil {
		return nil, err
	}
	if g.addr, err = netip.ParseAddrPort(g.lis.Addr().String()); err != nil {
		return nil, err
	}
	g.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.wait(r.Context())
		w.Header().Set(regionHeader, name)
	})}
	go func() { _ = g.server.Serve(g.lis) }() // until it is closed
	return g, nil
}

func ownAddress() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String(), nil
		}
	}
	return "", errors.New("this machine has no address but loopback, which no cluster takes for a pod's")
}

func (g *gate) wait(ctx context.Context) {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed == nil {
		return
	}
	select {
	case <-closed:
	case <-ctx.Done():
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		close(g.closed)
	}
	g.closed = nil
}

func (g *gate) close() {
	g.open()
	_ = g.server.Close()
}

// request is one that was sent.
type request struct {
	sent   time.Time
	took   time.Duration
	failed bool
	write  bool
}

// load sends requests at a steady rate, whether earlier ones are answered or not; each
// tenth may not be sent twice.
type load struct {
	stop func()

	mu   sync.Mutex
	done []request
}

func startLoad(ctx context.Context, url string) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{}
	web := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 2000}}
	var open sync.WaitGroup
	var n atomic.Int64
	open.Go(func() {
		tick := time.NewTicker(loadEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			open.Go(func() { l.send(ctx, web, url, n.Add(1)%10 == 0) })
		}
	})
	l.stop = func() { cancel(); open.Wait(); web.CloseIdleConnections() }
	return l
}

func (l *load) send(ctx context.Context, web *http.Client, url string, write bool) {
	r := request{sent: time.Now(), write: write}
	method := http.MethodGet
	if write {
		method = http.MethodPost
	}
	err := ask(ctx, web, method, url)
	if ctx.Err() != nil {
		return
	}
	r.took, r.failed = time.Since(r.sent), err != nil
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = append(l.done, r)
}

func ask(ctx context.Context, web *http.Client, method, url string) error {
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", strconv.Itoa(resp.StatusCode))
	}
	return nil
}

// take returns what was answered, or was not, since it was last called.
func (l *load) take() []request {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.done
	l.done = nil
	return out
}

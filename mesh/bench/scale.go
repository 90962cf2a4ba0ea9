package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/controlplane/source/kubernetes"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/kubetest"
	"github.com/tracegate/tracegate/mesh/metricsapi"
	"github.com/tracegate/tracegate/mesh/operator"
)

// One pod serves 200 requests a second: 100 need one, 900 need five.
const (
	quietQPS, busyQPS   = 100, 900
	quietPods, busyPods = 1, 5
	stockEvery          = 15 * time.Second // metrics-server's resolution, and the autoscaler's own default
	giveUp              = 3 * time.Minute
)

const oursService = `
metadata: {name: ours}
spec:
  image: example.org/ours:1
  ports: [{name: http, port: 8080}]
  autoscaling: {minReplicas: 1, maxReplicas: 10, scaleDownSeconds: 0, metrics: [{cpuPercent: 70}]}
`

const oursPolicy = `
metadata: {name: ours}
spec:
  target: {service: ours, pool: baseline}
  qpsPerPod: 200
  bounds: {min: 1, max: 10}
  leadSeconds: 0
  cooldownSeconds: 0
`

const stockService = `
metadata: {name: stock}
spec:
  image: example.org/stock:1
  ports: [{name: http, port: 8080}]
  autoscaling: {minReplicas: 1, maxReplicas: 10, scaleDownSeconds: 0, metrics: [{qpsPerPod: 200}]}
`

// timeline is one run, from the moment at which statistics say that one pod is not enough.
type timeline struct {
	decided time.Duration // the policy says how many pods; ours only
	scaled  time.Duration // the Deployment does
	ready   time.Duration // the pods are Ready
	edge    time.Duration // Envoy has them
}

// scaling is what both sides are measured with.
type scaling struct {
	*cluster
	rates *rates
	admin *envoy.Admin
	slow  *metricsapi.Poller // of the stock autoscaler
}

func runScale(ctx context.Context, c config, dir string, log *slog.Logger) (result, error) {
	binary, err := envoy.Find(ctx, c.envoy, "", log)
	if err != nil {
		return nil, err
	}
	k, err := startCluster(ctx, kubetest.Config{Controllers: true, Nodes: 2}, dir, log)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	work, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	var r scaleReport
	err = func() error {
		defer stop()
		seen, err := k.watch(ctx, &corev1.Pod{}, &appsv1.Deployment{}, &autoscalingv2.HorizontalPodAutoscaler{}, &v1alpha1.ScalingPolicy{}, &v1alpha1.MicroService{})
		if err != nil {
			return err
		}
		work.Go(seen)
		s := &scaling{cluster: k, rates: &rates{by: map[string]uint64{"ours": quietQPS, "stock": quietQPS}}}
		s.slow = s.rates.poller(stockEvery, nil, log)
		work.Go(func() error { return s.slow.Run(ctx) })
		if err := s.runOperator(ctx, work, log); err != nil {
			return err
		}
		if err := s.serveMetrics(ctx, work, dir, log); err != nil {
			return err
		}
		from := kubernetes.Endpoints{Cluster: k.Admin(), Namespace: namespace, Log: log}
		p, err := startPlane(ctx, binary, filepath.Join(dir, "plane"), benchPolicy, from.Run, s.rates, log)
		if err != nil {
			return err
		}
		work.Go(func() error { <-ctx.Done(); return p.close() })
		s.admin = p.edge.Admin()
		var sides errgroup.Group
		sides.Go(func() (err error) { r.ours, err = s.repeat(ctx, c.runs, s.oursOnce, "ours", oursService); return err })
		sides.Go(func() (err error) {
			r.stock, err = s.repeat(ctx, c.runs, s.stockOnce, "stock", stockService)
			return err
		})
		return sides.Wait()
	}()
	if ended := work.Wait(); err == nil {
		err = ended
	}
	return r, err
}

// runOperator is the product's, with the rights that we install and its own poller.
func (s *scaling) runOperator(ctx context.Context, work *errgroup.Group, log *slog.Logger) error {
	user := s.Admin()
	user.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:tracegate:tracegate-operator"}
	user.QPS, user.Burst = 0, 0
	if err := bindOperator(ctx, s.client); err != nil {
		return err
	}
	measured := make(chan struct{}, 1)
	fast := s.rates.poller(0, measured, log)
	work.Go(func() error { return fast.Run(ctx) })
	work.Go(func() error {
		cfg := operator.Config{Cluster: user, Namespaces: []string{namespace}, Metrics: "0", Health: "0", Workers: 4}
		return operator.Run(ctx, cfg, operator.Deps{Measured: measured, Rate: func(service, pool string, of group.ID) (float64, error) {
			return fast.Rate(service, pool, of, 5*time.Second)
		}}, log)
	})
	return nil
}

// serveMetrics answers the stock autoscaler, from statistics that are as old as
// metrics-server's.
func (s *scaling) serveMetrics(ctx context.Context, work *errgroup.Group, dir string, log *slog.Logger) error {
	cert, key, err := s.Sign("metrics", "metrics.default.svc", "localhost")
	if err != nil {
		return err
	}
	certFile, keyFile := filepath.Join(dir, "metrics.crt"), filepath.Join(dir, "metrics.key")
	for name, data := range map[string][]byte{certFile: cert, keyFile: key} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return err
		}
	}
	tls, err := metricsapi.TLS(ctx, s.Admin(), certFile, keyFile)
	if err != nil {
		return err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	api := metricsapi.API{Last: s.slow.Last, StaleAfter: time.Minute, Now: time.Now, Log: log}
	server := &http.Server{Handler: api.Handler(), TLSConfig: tls, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	work.Go(func() error {
		if err := server.ServeTLS(lis, "", ""); ctx.Err() == nil {
			return err
		}
		return nil
	})
	work.Go(func() error { <-ctx.Done(); return server.Close() })
	return s.Aggregate(ctx, s.client, "metrics", external.SchemeGroupVersion, lis.Addr())
}

// repeat makes a service and measures it again and again, from quiet to quiet.
func (s *scaling) repeat(ctx context.Context, runs int, once func(context.Context) (timeline, error), name, text string) ([]timeline, error) {
	if err := s.create(ctx, text, &v1alpha1.MicroService{}); err != nil {
		return nil, err
	}
	var out []timeline
	for i := range runs {
		t, err := once(ctx)
		if err != nil {
			return nil, fmt.Errorf("run %d of %s: %w", i+1, name, err)
		}
		out = append(out, t)
	}
	return out, nil
}

func (s *scaling) oursOnce(ctx context.Context) (t timeline, err error) {
	if err := s.quiet(ctx, "ours"); err != nil {
		return t, err
	}
	policy := &v1alpha1.ScalingPolicy{}
	if err := s.create(ctx, oursPolicy, policy); err != nil {
		return t, err
	}
	seenPolicy := func() (*v1alpha1.ScalingPolicy, error) {
		sp := &v1alpha1.ScalingPolicy{}
		err := s.seen.Get(ctx, key("ours"), sp)
		return sp, client.IgnoreNotFound(err)
	}
	if _, err := until(ctx, "policy looks", giveUp, func() (bool, error) {
		sp, err := seenPolicy()
		return sp.UID == policy.UID && meta.IsStatusConditionTrue(sp.Status.Conditions, v1alpha1.ConditionReady), err
	}); err != nil {
		return t, err
	}
	if err := pause(ctx, rand.N(time.Second)); err != nil { // statistics come 4 times a second: any moment between
		return t, err
	}
	start := time.Now()
	s.rates.set("ours", busyQPS)
	at, err := until(ctx, "policy decides", giveUp, func() (bool, error) {
		sp, err := seenPolicy()
		return sp.Status.Floor == busyPods, err
	})
	if err != nil {
		return t, err
	}
	t.decided = at.Sub(start)
	if err := s.follow(ctx, "ours", start, &t); err != nil {
		return t, err
	}
	return t, s.client.Delete(ctx, policy)
}

func (s *scaling) stockOnce(ctx context.Context) (t timeline, err error) {
	if err := s.quiet(ctx, "stock"); err != nil {
		return t, err
	}
	if err := pause(ctx, rand.N(stockEvery)); err != nil {
		return t, err
	}
	start := time.Now()
	s.rates.set("stock", busyQPS)
	return t, s.follow(ctx, "stock", start, &t)
}

// follow notes when the Deployment was scaled, its pods were ready, and Envoy had them.
func (s *scaling) follow(ctx context.Context, name string, start time.Time, t *timeline) error {
	for _, step := range []struct {
		what string
		into *time.Duration
		done func() (bool, error)
	}{
		{"deployment is scaled", &t.scaled, func() (bool, error) {
			var d appsv1.Deployment
			err := s.seen.Get(ctx, key(name+"-baseline"), &d)
			return d.Spec.Replicas != nil && *d.Spec.Replicas == busyPods, err
		}},
		{"pods are ready", &t.ready, func() (bool, error) { n, _, err := s.readyPods(ctx, name); return n == busyPods, err }},
		{"envoy has them", &t.edge, func() (bool, error) { n, err := members(ctx, s.admin, name); return n == busyPods, err }},
	} {
		at, err := until(ctx, step.what, giveUp, step.done)
		if err != nil {
			return err
		}
		*step.into = at.Sub(start)
	}
	return nil
}

// quiet brings a service back to one pod, everywhere.
func (s *scaling) quiet(ctx context.Context, name string) error {
	s.rates.set(name, quietQPS)
	since := time.Now()
	if _, err := until(ctx, "everyone knows that it is quiet", giveUp, func() (bool, error) {
		var hpa autoscalingv2.HorizontalPodAutoscaler
		if err := s.seen.Get(ctx, key(name+"-baseline"), &hpa); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		free := hpa.Spec.MinReplicas != nil && *hpa.Spec.MinReplicas == quietPods
		return free && (name == "ours" || s.slow.Last().Window.To.After(since)), nil
	}); err != nil {
		return err
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name + "-baseline", Namespace: namespace}}
	one := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":1}}`))
	if err := s.client.SubResource("scale").Patch(ctx, d, one); err != nil {
		return err
	}
	_, err := until(ctx, "one pod is left", giveUp, func() (bool, error) {
		ready, all, err := s.readyPods(ctx, name)
		if err != nil || ready != quietPods || all != quietPods {
			return false, err
		}
		n, err := members(ctx, s.admin, name)
		return n == quietPods, err
	})
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

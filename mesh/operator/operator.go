// Package operator keeps a cluster as its MicroServices and TrafficGroups say.
//
// For a MicroService it renders what it is made of (package render, pure), compares
// that with a cache of what is there, and writes only what differs, by server-side
// apply with one field owner. So a quiet cluster costs no call, what others add is
// left alone, and what others change is put back and reported (event DriftCorrected).
// What belongs to a service bears an owner reference, so Kubernetes removes it with
// the service; no finalizer is needed, since nothing lies outside of the cluster.
//
// The number of pods of an autoscaled pool is its autoscaler's: the operator does not
// write it, and hands it over unchanged where autoscaling is switched on. Only a
// ScalingPolicy raises it, together with the autoscaler's lower bound, for a time.
//
// What fails: a call that does is tried again with growing pauses (5 ms to 30 s), other
// resources of the same service are written all the same, and conditions say what is
// wrong. While the API server is away nothing changes; watches go on by themselves when
// it is back. Two operators never act at one time (a Lease), and one that ends gives
// its lease back.
//
// An earlier thought was to write each resource at every look, as apply makes no change
// of it; 1,000 services would have made 10,000 calls at each restart.
package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/gauge"
	"github.com/tracegate/tracegate/mesh/operator/render"
)

// Config says where and how to work.
type Config struct {
	// Cluster is how to reach the API server, and as whom.
	Cluster *rest.Config
	// Namespaces to look after; all where empty.
	Namespaces []string
	// LeaderNamespace is where the Lease lies by which one of several operators acts;
	// empty: this one always does.
	LeaderNamespace string
	// Metrics and Health are addresses to listen on; "0" for none.
	Metrics, Health string
	// Workers is how many services are looked at at one time.
	Workers int
	// Instance is this operator's name in events; tracegate-operator where empty.
	Instance string
}

// DefaultConfig is for a pod of its own.
func DefaultConfig() Config {
	return Config{LeaderNamespace: "tracegate", Metrics: ":8443", Health: ":8081", Workers: 16}
}

// Deps is what the operator needs of others.
type Deps struct {
	Tracing trace.TracerProvider // nil: no spans
	Rate    Rate                 // nil: no ScalingPolicy raises anything
	Path    Path                 // nil: none raises more than its target

	Gauge Gauge // nil: pods are asked by HTTP

	// Measured says that Rate has something new: policies look at once. Nil: they look
	// once a second.
	Measured <-chan struct{}
}

const (
	minRetry = 5 * time.Millisecond
	maxRetry = 30 * time.Second
)

// NewScheme knows all kinds that the operator reads and writes.
func NewScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	return s, errors.Join(scheme.AddToScheme(s), v1alpha1.AddToScheme(s))
}

// Run works until ctx is done, and then gives its lease back.
func Run(ctx context.Context, cfg Config, deps Deps, log *slog.Logger) error {
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler())) // of what has no logger of its own
	m, err := newManager(cfg, log)
	if err != nil {
		return err
	}
	if err := indexByService(ctx, m); err != nil {
		return err
	}
	provider := deps.Tracing
	if provider == nil {
		provider = noop.NewTracerProvider()
	}
	tracer := provider.Tracer("github.com/tracegate/tracegate/mesh/operator")
	services := &services{
		applier:  applier{client: m.GetClient(), scheme: m.GetScheme()},
		recorder: recorder{client: m.GetClient(), scheme: m.GetScheme(), instance: cmp.Or(cfg.Instance, "tracegate-operator"), log: log},
		log:      log,
	}
	err = ctrl.NewControllerManagedBy(m).Named("microservice").For(&v1alpha1.MicroService{}).
		Owns(&corev1.ServiceAccount{}).Owns(&corev1.Service{}).Owns(&networkingv1.NetworkPolicy{}).
		Owns(&appsv1.Deployment{}).
		Owns(&autoscalingv2.HorizontalPodAutoscaler{}, builder.WithPredicates(besidesStatus())).Owns(&policyv1.PodDisruptionBudget{}, builder.WithPredicates(besidesStatus())).
		Watches(&v1alpha1.ScalingPolicy{}, handler.EnqueueRequestsFromMapFunc(ofPolicy)).
		WithOptions(options(cfg)).Complete(traced(tracer, "MicroService", services))
	if err != nil {
		return fmt.Errorf("watch services: %w", err)
	}
	err = ctrl.NewControllerManagedBy(m).Named("trafficgroup").For(&v1alpha1.TrafficGroup{}).
		WithOptions(options(cfg)).Complete(traced(tracer, "TrafficGroup", &groups{client: m.GetClient()}))
	if err != nil {
		return fmt.Errorf("watch groups: %w", err)
	}
	looks := make(chan event.GenericEvent)
	if deps.Measured != nil {
		if err := m.Add(manager.RunnableFunc(func(ctx context.Context) error { return announce(ctx, deps.Measured, m.GetClient(), looks) })); err != nil {
			return fmt.Errorf("follow statistics: %w", err)
		}
	}
	err = ctrl.NewControllerManagedBy(m).Named("scalingpolicy").For(&v1alpha1.ScalingPolicy{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(looks, &handler.EnqueueRequestForObject{})).
		WithOptions(options(cfg)).Complete(traced(tracer, "ScalingPolicy", &policies{
		client: m.GetClient(), rate: deps.Rate, paths: deps.Path, recorder: services.recorder, now: time.Now, models: map[types.NamespacedName]*memory{},
	}))
	if err != nil {
		return fmt.Errorf("watch scaling policies: %w", err)
	}
	ask := deps.Gauge
	if ask == nil {
		web := &http.Client{Transport: &http.Transport{MaxIdleConns: 100, IdleConnTimeout: time.Minute}}
		defer web.CloseIdleConnections()
		ask = func(ctx context.Context, addr, metric string) (float64, error) {
			return gauge.Read(ctx, web, addr, metric)
		}
	}
	pods := &costs{client: m.GetClient(), gauge: ask, log: log}
	if err := m.Add(manager.RunnableFunc(pods.run)); err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	if err := m.Start(ctx); err != nil {
		return fmt.Errorf("run operator: %w", err)
	}
	return nil
}

func newManager(cfg Config, log *slog.Logger) (ctrl.Manager, error) {
	s, err := NewScheme()
	if err != nil {
		return nil, fmt.Errorf("know kinds: %w", err)
	}
	// Only what bears our label is kept in memory.
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{render.LabelManagedBy: render.ManagedBy})}
	byObject := map[client.Object]cache.ByObject{}
	for _, o := range []client.Object{
		&corev1.Pod{}, &corev1.ServiceAccount{}, &corev1.Service{}, &networkingv1.NetworkPolicy{},
		&appsv1.Deployment{}, &autoscalingv2.HorizontalPodAutoscaler{}, &policyv1.PodDisruptionBudget{},
	} {
		byObject[o] = ours
	}
	opts := cache.Options{ByObject: byObject, DefaultTransform: cache.TransformStripManagedFields()}
	if len(cfg.Namespaces) > 0 {
		opts.DefaultNamespaces = map[string]cache.Config{}
		for _, n := range cfg.Namespaces {
			opts.DefaultNamespaces[n] = cache.Config{}
		}
	}
	cluster := rest.CopyConfig(cfg.Cluster)
	cluster.UserAgent = "tracegate-operator"
	if cluster.QPS == 0 {
		cluster.QPS = -1 // the API server shares its time out fairly by itself
	}
	grace := 10 * time.Second
	m, err := ctrl.NewManager(cluster, ctrl.Options{
		Scheme: s, Cache: opts, Logger: logr.FromSlogHandler(log.Handler()),
		Metrics:                metricsserver.Options{BindAddress: cfg.Metrics},
		HealthProbeBindAddress: cfg.Health,
		LeaderElection:         cfg.LeaderNamespace != "", LeaderElectionNamespace: cfg.LeaderNamespace, LeaderElectionID: "tracegate-operator",
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       &grace,
		Controller:                    ctrlconfig.Controller{SkipNameValidation: new(true)}, // tests run it several times in one process
	})
	if err != nil {
		return nil, fmt.Errorf("make manager: %w", err)
	}
	if err := errors.Join(m.AddHealthzCheck("ping", healthz.Ping), m.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return nil, fmt.Errorf("add health checks: %w", err)
	}
	return m, nil
}

// besidesStatus takes changes of more than a status: autoscalers note in theirs, every 15 s, what they have
// measured, and nobody here reads it.
func besidesStatus() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return !equality.Semantic.DeepEqual(withoutStatus(e.ObjectOld), withoutStatus(e.ObjectNew))
	}}
}

func withoutStatus(o client.Object) client.Object {
	o = o.DeepCopyObject().(client.Object)
	o.SetResourceVersion("")
	switch o := o.(type) {
	case *autoscalingv2.HorizontalPodAutoscaler:
		o.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
	case *policyv1.PodDisruptionBudget:
		o.Status = policyv1.PodDisruptionBudgetStatus{}
	}
	return o
}

func options(cfg Config) controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: max(cfg.Workers, 1),
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](minRetry, maxRetry),
	}
}

// traced makes a span of each look at a resource.
func traced(tracer trace.Tracer, kind string, r reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
		ctx, span := tracer.Start(ctx, "reconcile "+kind, trace.WithAttributes(
			attribute.String("k8s.namespace.name", req.Namespace), attribute.String("k8s.resource.name", req.Name)))
		defer span.End()
		result, err := r.Reconcile(ctx, req)
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, "reconcile")
		}
		return result, err
	})
}

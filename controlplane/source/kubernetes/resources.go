package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/group"
)

// +kubebuilder:rbac:groups=mesh.tracegate.io,resources=routes;cohorts;trafficgroups,verbs=list;watch
// +kubebuilder:rbac:groups=mesh.tracegate.io,resources=routes/status;cohorts/status;trafficgroups/status,verbs=patch

// Resources lays the Routes, Cohorts and TrafficGroups of one namespace over a policy.
type Resources struct {
	Cluster   *rest.Config
	Namespace string
	Settle    time.Duration // 5 ms where zero
	Log       *slog.Logger
}

// tellAfter is how long edges may take before conditions say that they are waited for.
const tellAfter = 250 * time.Millisecond

// fieldOwner owns the conditions that the control plane writes.
const fieldOwner = client.FieldOwner("tracegate-controlplane")

// Run takes policies as a file has them and sends them on with the resources, also
// whenever these change, until ctx is done. What was sent as an error goes on as one.
// Until the cluster has been read once nothing is sent: a policy without its routes
// would be another one. What becomes of what was sent comes from fates, and is written
// into conditions.
func (r Resources) Run(ctx context.Context, in <-chan source.Update[policy.Policy], out chan<- source.Update[policy.Policy], fates <-chan source.Fate) error {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	objects, err := cache.New(r.Cluster, cache.Options{Scheme: scheme, DefaultNamespaces: map[string]cache.Config{r.Namespace: {}}})
	if err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	writer, err := client.New(r.Cluster, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	changed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- objects.Start(ctx) }()
	defer func() { cancel(); <-ended }() //nolint:errcheck // its error is the end of ctx
	for _, o := range []client.Object{&v1alpha1.Route{}, &v1alpha1.Cohort{}, &v1alpha1.TrafficGroup{}} {
		informer, err := objects.GetInformer(ctx, o) // returns when it has been read once
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch routes: %w", err)
		}
		seen := func(any) { poke(changed) }
		handler := toolscache.ResourceEventHandlerFuncs{AddFunc: seen, DeleteFunc: seen, UpdateFunc: func(old, now any) {
			if old.(client.Object).GetGeneration() != now.(client.Object).GetGeneration() { // else only its status
				poke(changed)
			}
		}}
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watch routes: %w", err)
		}
	}
	l := layer{objects: objects, writer: writer, log: r.Log, parse: new(policy.Reader).Parse, written: map[string]status{}}
	settle, tell := time.NewTimer(0), time.NewTimer(0)
	settle.Stop()
	tell.Stop()
	defer settle.Stop()
	defer tell.Stop()
	// What can happen: the policy was read; a resource changed, and a moment passed; it
	// became known what edges do with it, or they take their time; the end.
	for {
		select {
		case u := <-in:
			if u.Err != nil {
				if !send(ctx, out, u) {
					return nil
				}
				continue
			}
			l.base = u.Raw
		case <-changed:
			settle.Reset(max(r.Settle, defaultSettle))
			continue
		case f := <-fates:
			if l.learn(f) {
				tell.Stop()
				l.tell(ctx)
			} else {
				tell.Reset(tellAfter)
			}
			continue
		case <-tell.C:
			l.tell(ctx)
			continue
		case <-settle.C:
		case <-ctx.Done():
			return nil
		}
		if l.base == nil {
			continue
		}
		if !send(ctx, out, l.update(ctx)) {
			return nil
		}
		tell.Reset(tellAfter)
	}
}

func send(ctx context.Context, out chan<- source.Update[policy.Policy], u source.Update[policy.Policy]) bool {
	select {
	case out <- u:
		return true
	case <-ctx.Done():
		return false
	}
}

// layer is the state of Run.
type layer struct {
	objects client.Reader
	writer  client.Client
	log     *slog.Logger
	parse   func([]byte) (policy.Policy, error)
	base    []byte

	all     []resource
	refused map[string]error // of all: those that are not part of sent
	sent    version          // the newest policy
	before  version          // the one that all edges had, as far as it is known
	fate    source.Fate      // of sent
	written map[string]status
}

// version is a policy and what is part of it: generations by identity.
type version struct {
	raw  []byte
	with map[string]int64
}

// status is what the control plane writes of a resource.
type status struct {
	ObservedGeneration int64              `json:"observedGeneration"`
	Conditions         []metav1.Condition `json:"conditions"`
	Group              group.ID           `json:"group,omitempty"` // of a TrafficGroup
}

func (r resource) identity() string { return r.String() + "/" + r.uid }

// object is a resource as the cluster has it.
type object struct {
	resource
	client.Object
	conditions []metav1.Condition
	observed   int64
}

func (l *layer) read(ctx context.Context) (out []object, err error) {
	var routes v1alpha1.RouteList
	var cohorts v1alpha1.CohortList
	var groups v1alpha1.TrafficGroupList
	if err := errors.Join(l.objects.List(ctx, &routes), l.objects.List(ctx, &cohorts), l.objects.List(ctx, &groups)); err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for i := range routes.Items {
		o := &routes.Items[i]
		out = append(out, object{route(o), o, o.Status.Conditions, o.Status.ObservedGeneration})
	}
	for i := range cohorts.Items {
		o := &cohorts.Items[i]
		out = append(out, object{cohort(o), o, o.Status.Conditions, o.Status.ObservedGeneration})
	}
	for i := range groups.Items {
		o := &groups.Items[i]
		out = append(out, object{trafficGroup(o), o, o.Status.Conditions, o.Status.ObservedGeneration})
	}
	return out, nil
}

// update is the newest policy, and notes what is part of it.
func (l *layer) update(ctx context.Context) (u source.Update[policy.Policy]) {
	objects, err := l.read(ctx)
	if err != nil {
		return source.Update[policy.Policy]{Err: err}
	}
	all := make([]resource, len(objects))
	for i, o := range objects {
		all[i] = o.resource
	}
	var refused map[string]error
	if u.Value, u.Raw, refused, u.Err = overlay(l.parse, l.base, all); u.Err != nil {
		return u
	}
	if !bytes.Equal(u.Raw, l.sent.raw) {
		l.fate = source.Fate{InForce: l.fate.InForce}
	}
	l.all, l.refused, l.sent = all, refused, version{raw: u.Raw, with: map[string]int64{}}
	for _, r := range all {
		if refused[r.String()] == nil {
			l.sent.with[r.identity()] = r.generation
		}
	}
	return u
}

// learn takes what became of a policy, and says whether that is the end of it.
func (l *layer) learn(f source.Fate) bool {
	if !bytes.Equal(f.Wanted, l.sent.raw) {
		return false // there is a newer one
	}
	l.fate = f
	done := bytes.Equal(f.InForce, l.sent.raw)
	if done {
		l.before = l.sent
	}
	return done || f.Refused != ""
}

// inForce says whether all edges have it.
func (l *layer) inForce(r resource) bool {
	for _, v := range []version{l.sent, l.before} {
		if v.raw != nil && bytes.Equal(v.raw, l.fate.InForce) {
			return v.with[r.identity()] == r.generation
		}
	}
	return false
}

// tell writes statuses that have changed. A failure is logged: the next change, or
// start, writes what is missing.
func (l *layer) tell(ctx context.Context) {
	objects, err := l.read(ctx)
	if err != nil {
		l.log.Warn("conditions of routes are not written", "error", err)
		return
	}
	now := map[string]object{}
	for _, o := range objects {
		now[o.identity()] = o
	}
	written := map[string]status{}
	for _, r := range l.all {
		o, there := now[r.identity()]
		if !there || o.GetGeneration() != r.generation {
			continue // it is gone, or there is a newer one, which is told of soon
		}
		was, known := l.written[r.identity()]
		if !known { // what is in memory is behind what was written a moment ago
			was = status{ObservedGeneration: o.observed, Conditions: ours(o.conditions), Group: r.group}
		}
		s := stand(r, l.refused[r.String()], l.inForce(r), l.fate)
		next := status{ObservedGeneration: r.generation, Conditions: s.conditions(was.Conditions, r.generation), Group: r.group}
		if !equality.Semantic.DeepEqual(was, next) {
			if err := l.write(ctx, r.kind, o.Object, next); client.IgnoreNotFound(err) != nil {
				if ctx.Err() == nil {
					l.log.Warn("condition is not written", "kind", r.kind, "name", r.name, "error", err)
				}
				continue
			}
		}
		written[r.identity()] = next
	}
	l.written = written
}

// write applies a status, so that what others write there stays theirs.
func (l *layer) write(ctx context.Context, kind string, o client.Object, s status) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&struct {
		Status status `json:"status"`
	}{s})
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	u.SetNamespace(o.GetNamespace())
	u.SetName(o.GetName())
	return l.writer.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), fieldOwner, client.ForceOwnership)
}

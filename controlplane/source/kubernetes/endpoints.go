package kubernetes

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
)

// The labels of a pool's Service, and so of its EndpointSlices.
const (
	labelService = v1alpha1.Group + "/service"
	labelPool    = v1alpha1.Group + "/pool"
)

// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=list;watch

// Endpoints watches the EndpointSlices of one namespace.
type Endpoints struct {
	Cluster   *rest.Config
	Namespace string
	// Port is the name of the port requests go to; the first of a slice where empty.
	Port   string
	Settle time.Duration // 5 ms where zero
	Log    *slog.Logger
}

// Run sends a set at first, and whenever it has changed, until ctx is done. A loss of
// the API server is an error that is sent once.
func (e Endpoints) Run(ctx context.Context, out chan<- source.Update[policy.Endpoints]) error {
	client, err := kubernetes.NewForConfig(e.Cluster)
	if err != nil {
		return fmt.Errorf("watch endpoints: %w", err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(e.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = labelService + "," + labelPool }),
		informers.WithTransform(slim))
	informer := factory.Discovery().V1().EndpointSlices()
	var (
		changed = make(chan struct{}, 1)
		lost    atomic.Pointer[error] // why the server does not answer
	)
	seen := func(any) { poke(changed) }
	if _, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: seen, UpdateFunc: func(_, o any) { seen(o) }, DeleteFunc: seen,
	}); err != nil {
		return fmt.Errorf("watch endpoints: %w", err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown() // waits for its goroutines, which end with ctx

	// A watch says nothing of a server that refuses connections, so it is asked.
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { e.ask(ctx, client, &lost, changed) })
	work.Go(func() { // a cluster without slices has no event
		if cache.WaitForCacheSync(ctx.Done(), informer.Informer().HasSynced) {
			poke(changed)
		}
	})
	var last source.Update[policy.Endpoints]
	settle := e.Settle
	if settle <= 0 {
		settle = defaultSettle
	}
	coalesce(ctx, changed, settle, func() bool {
		var u source.Update[policy.Endpoints]
		if why := lost.Load(); why != nil {
			u.Err = fmt.Errorf("watch endpoints, the last ones are kept: %w", *why)
		} else {
			if !informer.Informer().HasSynced() {
				return true
			}
			list, err := informer.Lister().List(labels.Everything())
			if err != nil {
				u.Err = fmt.Errorf("list endpoints: %w", err)
			} else {
				u = e.update(list)
			}
		}
		if same(u, last) {
			return true
		}
		last = u
		select {
		case out <- u:
			return true
		case <-ctx.Done():
			return false
		}
	})
	return nil
}

// slim drops what takes memory and nobody reads.
func slim(o any) (any, error) {
	if s, ok := o.(*discoveryv1.EndpointSlice); ok {
		s.ManagedFields = nil
	}
	return o, nil
}

func same(a, b source.Update[policy.Endpoints]) bool {
	if (a.Err == nil) != (b.Err == nil) {
		return false
	}
	return a.Err != nil || b.Raw != nil && bytes.Equal(a.Raw, b.Raw)
}

// update goes through the same document, and so the same checks, as a file.
func (e Endpoints) update(list []*discoveryv1.EndpointSlice) source.Update[policy.Endpoints] {
	doc := map[string]any{"services": collect(list, e.Port)}
	if z := zones(list); len(z) > 0 {
		doc["zones"] = z
	}
	raw, err := yaml.Marshal(doc)
	if err != nil {
		return source.Update[policy.Endpoints]{Err: fmt.Errorf("write endpoints: %w", err)}
	}
	value, err := policy.ParseEndpoints(raw)
	if err != nil {
		return source.Update[policy.Endpoints]{Err: fmt.Errorf("endpoints of the cluster: %w", err)}
	}
	return source.Update[policy.Endpoints]{Value: value, Raw: raw}
}

// collect is service -> pool -> sorted addresses. A pool whose pods are all away has an
// empty list. Pods that are on their way out are left out, so that their sockets are
// not joined by new ones.
func collect(list []*discoveryv1.EndpointSlice, portName string) map[string]map[string][]string {
	out := map[string]map[string][]string{}
	for _, s := range list {
		service, pool := s.Labels[labelService], s.Labels[labelPool]
		pools := out[service]
		if pools == nil {
			pools = map[string][]string{}
			out[service] = pools
		}
		addrs := pools[pool]
		if port := port(s.Ports, portName); port != "" {
			for _, ep := range s.Endpoints {
				if serves(ep.Conditions) {
					addrs = append(addrs, net.JoinHostPort(ep.Addresses[0], port))
				}
			}
		}
		slices.Sort(addrs)
		pools[pool] = slices.Compact(addrs)
	}
	return out
}

// zones is zone -> sorted addresses of pods.
func zones(list []*discoveryv1.EndpointSlice) map[string][]string {
	of := map[string]string{} // an address has one, whatever slices say while they change
	for _, s := range list {
		for _, ep := range s.Endpoints {
			if ep.Zone != nil && *ep.Zone != "" && serves(ep.Conditions) {
				of[ep.Addresses[0]] = max(of[ep.Addresses[0]], *ep.Zone)
			}
		}
	}
	out := map[string][]string{}
	for _, addr := range slices.Sorted(maps.Keys(of)) {
		out[of[addr]] = append(out[of[addr]], addr)
	}
	return out
}

func serves(c discoveryv1.EndpointConditions) bool {
	return (c.Ready == nil || *c.Ready) && (c.Terminating == nil || !*c.Terminating)
}

func port(ports []discoveryv1.EndpointPort, name string) string {
	for _, p := range ports {
		if p.Port != nil && (name == "" || p.Name != nil && *p.Name == name) {
			return strconv.Itoa(int(*p.Port))
		}
	}
	return ""
}

// ask notes whether the API server answers, every two seconds.
func (e Endpoints) ask(ctx context.Context, client kubernetes.Interface, lost *atomic.Pointer[error], changed chan struct{}) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := client.DiscoveryV1().EndpointSlices(e.Namespace).List(one, metav1.ListOptions{Limit: 1, ResourceVersion: "0"})
		cancel()
		was := lost.Load() != nil
		if err == nil {
			lost.Store(nil)
		} else {
			lost.Store(&err)
		}
		if was != (err != nil) {
			poke(changed)
		}
	}
}

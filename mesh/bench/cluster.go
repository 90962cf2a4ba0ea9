package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/deploy"
	"github.com/tracegate/tracegate/mesh/kubetest"
	"github.com/tracegate/tracegate/mesh/operator"
)

const namespace = "bench"

// cluster is Kubernetes with our definitions and rights.
type cluster struct {
	*kubetest.Cluster
	client client.Client // asks the API server
	seen   cache.Cache   // what watches have told, some milliseconds later
}

func startCluster(ctx context.Context, cfg kubetest.Config, dir string, log *slog.Logger) (*cluster, error) {
	k, err := kubetest.Start(ctx, cfg, dir, log)
	if err != nil {
		return nil, err
	}
	c := &cluster{Cluster: k}
	if err := c.prepare(ctx); err != nil {
		k.Close()
		return nil, err
	}
	return c, nil
}

func (c *cluster) prepare(ctx context.Context) error {
	for _, f := range []struct {
		files   fs.FS
		pattern string
	}{{deploy.CRDs, "chart/crds/*.yaml"}, {deploy.Kustomize, "kustomize/namespace.yaml"}, {deploy.RBAC, "chart/files/*.yaml"}} {
		if err := c.ApplyFiles(ctx, f.files, f.pattern, ""); err != nil {
			return err
		}
	}
	scheme, err := operator.NewScheme()
	if err != nil {
		return err
	}
	if c.client, err = client.New(c.Admin(), client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if c.seen, err = cache.New(c.Admin(), cache.Options{Scheme: scheme}); err != nil {
		return err
	}
	return c.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
}

// watch keeps c.seen until ctx is done, and returns when it knows all of the kinds.
func (c *cluster) watch(ctx context.Context, kinds ...client.Object) (ended func() error, err error) {
	for _, k := range kinds {
		if _, err := c.seen.GetInformer(ctx, k, cache.BlockUntilSynced(false)); err != nil {
			return nil, err
		}
	}
	end := make(chan error, 1)
	go func() { end <- c.seen.Start(ctx) }()
	if !c.seen.WaitForCacheSync(ctx) {
		return nil, errors.New("watches did not begin")
	}
	return func() error { return <-end }, nil
}

// create makes a resource of the text.
func (c *cluster) create(ctx context.Context, text string, into client.Object) error {
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		return err
	}
	into.SetNamespace(namespace)
	return c.client.Create(ctx, into)
}

func key(name string) client.ObjectKey { return client.ObjectKey{Namespace: namespace, Name: name} }

// until looks every two milliseconds, and returns when check first held.
func until(ctx context.Context, what string, limit time.Duration, check func() (bool, error)) (time.Time, error) {
	return every(ctx, 2*time.Millisecond, what, limit, check)
}

func every(ctx context.Context, pause time.Duration, what string, limit time.Duration, check func() (bool, error)) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		ok, err := check()
		if err != nil {
			return time.Time{}, fmt.Errorf("%s: %w", what, err)
		}
		if ok {
			return time.Now(), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s: %w", what, ctx.Err())
		}
	}
}

// readyPods of a pool, by what watches have told.
func (c *cluster) readyPods(ctx context.Context, service string) (ready, all int, err error) {
	var pods corev1.PodList
	if err := c.seen.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels{v1alpha1.Group + "/service": service}); err != nil {
		return 0, 0, err
	}
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil {
			continue
		}
		all++
		for _, cond := range p.Status.Conditions {
			if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	return ready, all, nil
}

// bindOperator gives the operator's account its rights.
func bindOperator(ctx context.Context, c client.Client) error {
	account := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "tracegate", Name: "tracegate-operator"}}
	meta := metav1.ObjectMeta{Name: "tracegate-operator", Namespace: "tracegate"}
	if err := c.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: meta.Name}, Subjects: account, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
	}); err != nil {
		return err
	}
	return c.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: account, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}})
}

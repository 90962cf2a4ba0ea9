package render

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
)

// PoolBaseline is the pool that every service has.
const PoolBaseline = "baseline"

// Pool is one pool with everything filled in from its service.
type Pool struct {
	v1alpha1.Pool

	// Autoscaling is nil where Replicas counts.
	Autoscaling *v1alpha1.Autoscaling
	Replicas    int32
}

// Floor is how many pods the pool has at least.
func (p Pool) Floor() int32 {
	if p.Autoscaling != nil {
		return p.Autoscaling.MinReplicas
	}
	return p.Replicas
}

// Pools of a service, baseline where it names none.
func Pools(ms *v1alpha1.MicroService) []Pool {
	named := ms.Spec.Pools
	if len(named) == 0 {
		named = []v1alpha1.Pool{{Name: PoolBaseline}}
	}
	out := make([]Pool, 0, len(named))
	for _, p := range named {
		pool := Pool{Pool: template(ms, p), Replicas: 1}
		switch {
		case p.Autoscaling != nil:
			pool.Autoscaling = p.Autoscaling
		case p.Replicas != nil:
			pool.Replicas = *p.Replicas
		case ms.Spec.Autoscaling != nil:
			pool.Autoscaling = ms.Spec.Autoscaling
		case ms.Spec.Replicas != nil:
			pool.Replicas = *ms.Spec.Replicas
		}
		out = append(out, pool)
	}
	return out
}

// template fills in what the pool leaves to its service. What is set but empty is set.
func template(ms *v1alpha1.MicroService, p v1alpha1.Pool) v1alpha1.Pool {
	p.Image = cmp.Or(p.Image, ms.Spec.Image)
	if p.Command == nil {
		p.Command = ms.Spec.Command
	}
	if p.Args == nil {
		p.Args = ms.Spec.Args
	}
	p.Env = environment(ms.Spec.Env, p.Env)
	if p.Resources == nil {
		p.Resources = &ms.Spec.Resources
	}
	if p.Probes == nil {
		p.Probes = ms.Spec.Probes
	}
	if p.NodeSelector == nil {
		p.NodeSelector = ms.Spec.NodeSelector
	}
	if p.Tolerations == nil {
		p.Tolerations = ms.Spec.Tolerations
	}
	return p
}

// environment is the service's, with the pool's laid over it.
func environment(service, pool []corev1.EnvVar) []corev1.EnvVar {
	own := map[string]corev1.EnvVar{}
	for _, e := range pool {
		own[e.Name] = e
	}
	var out []corev1.EnvVar
	for _, e := range service {
		if o, ok := own[e.Name]; ok {
			e = o
			delete(own, e.Name)
		}
		out = append(out, e)
	}
	for _, e := range pool {
		if _, left := own[e.Name]; left {
			out = append(out, e)
		}
	}
	return out
}

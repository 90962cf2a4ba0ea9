package render

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsac "k8s.io/client-go/applyconfigurations/apps/v1"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
)

const (
	// leaveSeconds pass between a pod's end and its SIGTERM, so that edges have taken
	// it out before it refuses anything.
	leaveSeconds = 2
	// stalledSeconds without a new ready pod make a rollout stalled.
	stalledSeconds = 120
)

func account(ms *v1alpha1.MicroService) any {
	return coreac.ServiceAccount(ms.Name, ms.Namespace).WithLabels(labels(ms, "")).WithOwnerReferences(owner(ms)).
		WithAutomountServiceAccountToken(false)
}

func deployment(ms *v1alpha1.MicroService, pool Pool) any {
	replicas := ReplicasOperator
	if pool.Autoscaling != nil {
		replicas = ReplicasAutoscaler
	}
	spec := appsac.DeploymentSpec().
		WithSelector(labelSelector(selector(ms, pool.Name))).
		WithProgressDeadlineSeconds(stalledSeconds).
		WithStrategy(appsac.DeploymentStrategy().WithType("RollingUpdate").WithRollingUpdate(
			appsac.RollingUpdateDeployment().WithMaxUnavailable(intstr.FromInt32(0)).WithMaxSurge(intstr.FromString("25%")))).
		WithTemplate(coreac.PodTemplateSpec().WithLabels(labels(ms, pool.Name)).WithSpec(pod(ms, pool)))
	if pool.Autoscaling == nil {
		spec.WithReplicas(pool.Replicas)
	}
	return appsac.Deployment(Name(ms, pool.Name), ms.Namespace).WithLabels(labels(ms, pool.Name)).WithOwnerReferences(owner(ms)).
		WithAnnotations(map[string]string{AnnotationReplicas: replicas}).WithSpec(spec)
}

// pod passes the Pod Security Standard "restricted", and can write to nothing but
// /tmp.
func pod(ms *v1alpha1.MicroService, pool Pool) *coreac.PodSpecApplyConfiguration {
	return coreac.PodSpec().
		WithServiceAccountName(ms.Name).
		WithAutomountServiceAccountToken(false).
		WithTerminationGracePeriodSeconds(ms.Spec.DrainSeconds + leaveSeconds + 3).
		WithSecurityContext(coreac.PodSecurityContext().WithRunAsNonRoot(true).
			WithSeccompProfile(coreac.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))).
		WithTopologySpreadConstraints(coreac.TopologySpreadConstraint().WithMaxSkew(1).WithTopologyKey("kubernetes.io/hostname").
			WithWhenUnsatisfiable(corev1.ScheduleAnyway).WithLabelSelector(labelSelector(selector(ms, pool.Name)))).
		WithVolumes(coreac.Volume().WithName("tmp").WithEmptyDir(coreac.EmptyDirVolumeSource())).
		WithContainers(container(ms, pool))
}

func container(ms *v1alpha1.MicroService, pool Pool) *coreac.ContainerApplyConfiguration {
	c := coreac.Container().WithName("app").WithImage(cmp.Or(pool.Image, ms.Spec.Image)).WithArgs(ms.Spec.Args...).
		WithEnv(environment(ms, pool)...).
		WithResources(resources(ms, pool)).
		WithVolumeMounts(coreac.VolumeMount().WithName("tmp").WithMountPath("/tmp")).
		WithLifecycle(coreac.Lifecycle().WithPreStop(coreac.LifecycleHandler().WithSleep(coreac.SleepAction().WithSeconds(leaveSeconds)))).
		WithSecurityContext(coreac.SecurityContext().WithAllowPrivilegeEscalation(false).WithReadOnlyRootFilesystem(true).
			WithCapabilities(coreac.Capabilities().WithDrop("ALL")))
	for _, p := range ms.Spec.Ports {
		c.WithPorts(coreac.ContainerPort().WithName(p.Name).WithContainerPort(p.Port).WithProtocol(corev1.ProtocolTCP))
	}
	if p := ms.Spec.Probes; p != nil {
		if p.Ready != nil {
			c.WithReadinessProbe(probe(p.Ready))
		}
		if p.Live != nil {
			c.WithLivenessProbe(probe(p.Live))
		}
		if p.Started != nil {
			c.WithStartupProbe(probe(p.Started))
		}
	}
	return c
}

func probe(p *v1alpha1.HTTPProbe) *coreac.ProbeApplyConfiguration {
	return coreac.Probe().WithPeriodSeconds(p.PeriodSeconds).WithFailureThreshold(p.FailureThreshold).
		WithHTTPGet(coreac.HTTPGetAction().WithPath(p.Path).WithPort(intstr.FromString(p.Port)))
}

// environment is the service's, with the pool's laid over it.
func environment(ms *v1alpha1.MicroService, pool Pool) []*coreac.EnvVarApplyConfiguration {
	own := map[string]corev1.EnvVar{}
	for _, e := range pool.Env {
		own[e.Name] = e
	}
	out := []*coreac.EnvVarApplyConfiguration{coreac.EnvVar().WithName("TRACEGATE_POOL").WithValue(pool.Name)}
	add := func(e corev1.EnvVar) { out = append(out, variable(e)) }
	for _, e := range ms.Spec.Env {
		if o, ok := own[e.Name]; ok {
			e = o
			delete(own, e.Name)
		}
		add(e)
	}
	for _, e := range pool.Env {
		if _, left := own[e.Name]; left {
			add(e)
		}
	}
	return out
}

func variable(e corev1.EnvVar) *coreac.EnvVarApplyConfiguration {
	v := coreac.EnvVar().WithName(e.Name)
	from := e.ValueFrom
	if from == nil {
		if e.Value != "" { // the API server leaves an empty one out
			v.WithValue(e.Value)
		}
		return v
	}
	source := coreac.EnvVarSource()
	if r := from.FieldRef; r != nil {
		source.WithFieldRef(coreac.ObjectFieldSelector().WithFieldPath(r.FieldPath))
	}
	if r := from.SecretKeyRef; r != nil {
		source.WithSecretKeyRef(coreac.SecretKeySelector().WithName(r.Name).WithKey(r.Key))
	}
	if r := from.ConfigMapKeyRef; r != nil {
		source.WithConfigMapKeyRef(coreac.ConfigMapKeySelector().WithName(r.Name).WithKey(r.Key))
	}
	return v.WithValueFrom(source)
}

func resources(ms *v1alpha1.MicroService, pool Pool) *coreac.ResourceRequirementsApplyConfiguration {
	r := ms.Spec.Resources
	if pool.Resources != nil {
		r = *pool.Resources
	}
	out := coreac.ResourceRequirements()
	if len(r.Requests) > 0 {
		out.WithRequests(r.Requests)
	}
	if len(r.Limits) > 0 {
		out.WithLimits(r.Limits)
	}
	return out
}

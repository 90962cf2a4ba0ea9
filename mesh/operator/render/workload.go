package render

import (
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
	spec := coreac.PodSpec().
		WithServiceAccountName(ms.Name).
		WithAutomountServiceAccountToken(false).
		WithTerminationGracePeriodSeconds(ms.Spec.DrainSeconds + leaveSeconds + 3).
		WithSecurityContext(coreac.PodSecurityContext().WithRunAsNonRoot(true).
			WithSeccompProfile(coreac.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))).
		WithTopologySpreadConstraints(coreac.TopologySpreadConstraint().WithMaxSkew(1).WithTopologyKey("kubernetes.io/hostname").
			WithWhenUnsatisfiable(corev1.ScheduleAnyway).WithLabelSelector(labelSelector(selector(ms, pool.Name)))).
		WithVolumes(coreac.Volume().WithName("tmp").WithEmptyDir(coreac.EmptyDirVolumeSource())).
		WithContainers(container(ms, pool))
	if len(pool.NodeSelector) > 0 {
		spec.WithNodeSelector(pool.NodeSelector)
	}
	for _, t := range pool.Tolerations {
		spec.WithTolerations(toleration(t))
	}
	return spec
}

func container(ms *v1alpha1.MicroService, pool Pool) *coreac.ContainerApplyConfiguration {
	c := coreac.Container().WithName("app").WithImage(pool.Image).WithCommand(pool.Command...).WithArgs(pool.Args...).
		WithEnv(coreac.EnvVar().WithName("TRACEGATE_POOL").WithValue(pool.Name)).
		WithResources(resources(*pool.Resources)).
		WithVolumeMounts(coreac.VolumeMount().WithName("tmp").WithMountPath("/tmp")).
		WithLifecycle(coreac.Lifecycle().WithPreStop(coreac.LifecycleHandler().WithSleep(coreac.SleepAction().WithSeconds(leaveSeconds)))).
		WithSecurityContext(coreac.SecurityContext().WithAllowPrivilegeEscalation(false).WithReadOnlyRootFilesystem(true).
			WithCapabilities(coreac.Capabilities().WithDrop("ALL")))
	for _, p := range ms.Spec.Ports {
		c.WithPorts(coreac.ContainerPort().WithName(p.Name).WithContainerPort(p.Port).WithProtocol(corev1.ProtocolTCP))
	}
	for _, e := range pool.Env {
		c.WithEnv(variable(e))
	}
	if p := pool.Probes; p != nil {
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

func toleration(t corev1.Toleration) *coreac.TolerationApplyConfiguration {
	out := coreac.Toleration()
	if t.Key != "" {
		out.WithKey(t.Key)
	}
	if t.Operator != "" {
		out.WithOperator(t.Operator)
	}
	if t.Value != "" {
		out.WithValue(t.Value)
	}
	if t.Effect != "" {
		out.WithEffect(t.Effect)
	}
	if t.TolerationSeconds != nil {
		out.WithTolerationSeconds(*t.TolerationSeconds)
	}
	return out
}

func probe(p *v1alpha1.HTTPProbe) *coreac.ProbeApplyConfiguration {
	return coreac.Probe().WithPeriodSeconds(p.PeriodSeconds).WithFailureThreshold(p.FailureThreshold).
		WithHTTPGet(coreac.HTTPGetAction().WithPath(p.Path).WithPort(intstr.FromString(p.Port)))
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
	if r := from.ResourceFieldRef; r != nil {
		field := coreac.ResourceFieldSelector().WithResource(r.Resource).WithDivisor(r.Divisor)
		if r.ContainerName != "" {
			field.WithContainerName(r.ContainerName)
		}
		source.WithResourceFieldRef(field)
	}
	if r := from.SecretKeyRef; r != nil {
		key := coreac.SecretKeySelector().WithName(r.Name).WithKey(r.Key)
		key.Optional = r.Optional
		source.WithSecretKeyRef(key)
	}
	if r := from.ConfigMapKeyRef; r != nil {
		key := coreac.ConfigMapKeySelector().WithName(r.Name).WithKey(r.Key)
		key.Optional = r.Optional
		source.WithConfigMapKeyRef(key)
	}
	return v.WithValueFrom(source)
}

func resources(r corev1.ResourceRequirements) *coreac.ResourceRequirementsApplyConfiguration {
	out := coreac.ResourceRequirements()
	if len(r.Requests) > 0 {
		out.WithRequests(r.Requests)
	}
	if len(r.Limits) > 0 {
		out.WithLimits(r.Limits)
	}
	return out
}

package render

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	autoscalingac "k8s.io/client-go/applyconfigurations/autoscaling/v2"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingac "k8s.io/client-go/applyconfigurations/networking/v1"
	policyac "k8s.io/client-go/applyconfigurations/policy/v1"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
)

// The external metrics that pools are scaled on, of the service and pool that their selector names,
// and of one group where it names one.
const (
	MetricQPS          = "traffic_group_qps"
	MetricErrorFreeQPS = "traffic_group_error_free_qps"
	MetricP95          = "traffic_group_p95_milliseconds"
)

// The labels of a metric's selector.
const (
	MetricService = "service"
	MetricPool    = "pool"
	MetricGroup   = "group" // name of a TrafficGroup
)

func service(ms *v1alpha1.MicroService) any {
	return coreac.Service(ms.Name, ms.Namespace).WithLabels(labels(ms, "")).WithOwnerReferences(owner(ms)).
		WithSpec(coreac.ServiceSpec().WithType(corev1.ServiceTypeClusterIP).WithSelector(selector(ms, "")).WithPorts(ports(ms)...))
}

// poolService has no address of its own: it is there for its EndpointSlices, which
// bear its labels and so say of whom they are.
func poolService(ms *v1alpha1.MicroService, pool Pool) any {
	return coreac.Service(Name(ms, pool.Name), ms.Namespace).WithLabels(labels(ms, pool.Name)).WithOwnerReferences(owner(ms)).
		WithSpec(coreac.ServiceSpec().WithClusterIP(corev1.ClusterIPNone).WithSelector(selector(ms, pool.Name)).WithPorts(ports(ms)...))
}

func ports(ms *v1alpha1.MicroService) []*coreac.ServicePortApplyConfiguration {
	out := make([]*coreac.ServicePortApplyConfiguration, 0, len(ms.Spec.Ports))
	for _, p := range ms.Spec.Ports {
		port := coreac.ServicePort().WithName(p.Name).WithPort(p.Port).WithTargetPort(intstr.FromString(p.Name)).WithProtocol(corev1.ProtocolTCP)
		if p.AppProtocol != nil {
			port.WithAppProtocol(*p.AppProtocol)
		}
		out = append(out, port)
	}
	return out
}

// networkPolicy lets in whom the service names, or its own namespace, by its ports only.
func networkPolicy(ms *v1alpha1.MicroService) any {
	spec := networkingac.NetworkPolicySpec().WithPolicyTypes(networkingv1.PolicyTypeIngress).WithPodSelector(labelSelector(selector(ms, "")))
	if peers := peers(ms.Spec.Access); len(peers) > 0 { // a rule from nobody would be one from everybody
		rule := networkingac.NetworkPolicyIngressRule().WithFrom(peers...)
		for _, p := range ms.Spec.Ports {
			rule.WithPorts(networkingac.NetworkPolicyPort().WithProtocol(corev1.ProtocolTCP).WithPort(intstr.FromInt32(p.Port)))
		}
		spec.WithIngress(rule)
	}
	if in := ms.Spec.ScaleIn; in != nil {
		for _, p := range ms.Spec.Ports {
			if p.Name == in.Port {
				spec.WithIngress(networkingac.NetworkPolicyIngressRule().WithFrom(operatorPods()).
					WithPorts(networkingac.NetworkPolicyPort().WithProtocol(corev1.ProtocolTCP).WithPort(intstr.FromInt32(p.Port))))
			}
		}
	}
	return networkingac.NetworkPolicy(ms.Name, ms.Namespace).WithLabels(labels(ms, "")).WithOwnerReferences(owner(ms)).WithSpec(spec)
}

// operatorPods ask pods for their metrics; they are installed into the namespace tracegate.
func operatorPods() *networkingac.NetworkPolicyPeerApplyConfiguration {
	return networkingac.NetworkPolicyPeer().WithNamespaceSelector(labelSelector(map[string]string{"kubernetes.io/metadata.name": "tracegate"})).
		WithPodSelector(labelSelector(map[string]string{"app.kubernetes.io/name": "tracegate-operator"}))
}

func peers(a *v1alpha1.Access) []*networkingac.NetworkPolicyPeerApplyConfiguration {
	if a == nil {
		return []*networkingac.NetworkPolicyPeerApplyConfiguration{networkingac.NetworkPolicyPeer().WithPodSelector(metaac.LabelSelector())}
	}
	out := make([]*networkingac.NetworkPolicyPeerApplyConfiguration, 0, len(a.From))
	for _, p := range a.From {
		peer := networkingac.NetworkPolicyPeer()
		if p.Namespace != "" {
			peer.WithNamespaceSelector(labelSelector(map[string]string{"kubernetes.io/metadata.name": p.Namespace}))
		}
		if p.Service != "" {
			peer.WithPodSelector(labelSelector(map[string]string{LabelService: p.Service}))
		}
		out = append(out, peer)
	}
	return out
}

// autoscaler grows at once, as far as metrics ask for, and shrinks slowly.
func autoscaler(ms *v1alpha1.MicroService, pool Pool, floor int32) any {
	a := pool.Autoscaling
	name := Name(ms, pool.Name)
	spec := autoscalingac.HorizontalPodAutoscalerSpec().
		WithScaleTargetRef(autoscalingac.CrossVersionObjectReference().WithAPIVersion("apps/v1").WithKind("Deployment").WithName(name)).
		WithMinReplicas(min(max(a.MinReplicas, floor), a.MaxReplicas)).WithMaxReplicas(a.MaxReplicas).
		WithBehavior(autoscalingac.HorizontalPodAutoscalerBehavior().
			WithScaleUp(autoscalingac.HPAScalingRules().WithStabilizationWindowSeconds(0).WithSelectPolicy(autoscalingv2.MaxChangePolicySelect).
				WithPolicies(autoscalingac.HPAScalingPolicy().WithType(autoscalingv2.PercentScalingPolicy).WithValue(900).WithPeriodSeconds(1))).
			WithScaleDown(autoscalingac.HPAScalingRules().WithStabilizationWindowSeconds(a.ScaleDownSeconds).WithSelectPolicy(autoscalingv2.MaxChangePolicySelect).
				WithPolicies(autoscalingac.HPAScalingPolicy().WithType(autoscalingv2.PercentScalingPolicy).WithValue(50).WithPeriodSeconds(15))))
	for _, m := range a.Metrics {
		spec.WithMetrics(metric(ms, pool, m))
	}
	return autoscalingac.HorizontalPodAutoscaler(name, ms.Namespace).WithLabels(labels(ms, pool.Name)).WithOwnerReferences(owner(ms)).WithSpec(spec)
}

func metric(ms *v1alpha1.MicroService, pool Pool, m v1alpha1.ScaleMetric) *autoscalingac.MetricSpecApplyConfiguration {
	if m.CPUPercent != nil {
		return autoscalingac.MetricSpec().WithType(autoscalingv2.ResourceMetricSourceType).WithResource(
			autoscalingac.ResourceMetricSource().WithName(corev1.ResourceCPU).WithTarget(
				autoscalingac.MetricTarget().WithType(autoscalingv2.UtilizationMetricType).WithAverageUtilization(*m.CPUPercent)))
	}
	target := autoscalingac.MetricTarget().WithType(autoscalingv2.AverageValueMetricType)
	var name string
	switch {
	case m.QPSPerPod != nil:
		name, target.AverageValue = MetricQPS, quantity(*m.QPSPerPod)
	case m.ErrorFreeQPSPerPod != nil:
		name, target.AverageValue = MetricErrorFreeQPS, quantity(*m.ErrorFreeQPSPerPod)
	default: // the same for each pod, so nothing is divided by their number
		name, target = MetricP95, autoscalingac.MetricTarget().WithType(autoscalingv2.ValueMetricType).WithValue(*quantity(*m.P95Milliseconds))
	}
	match := map[string]string{MetricService: ms.Name, MetricPool: pool.Name}
	if m.TrafficGroup != "" {
		match[MetricGroup] = m.TrafficGroup
	}
	return autoscalingac.MetricSpec().WithType(autoscalingv2.ExternalMetricSourceType).WithExternal(
		autoscalingac.ExternalMetricSource().
			WithMetric(autoscalingac.MetricIdentifier().WithName(name).WithSelector(labelSelector(match))).
			WithTarget(target))
}

func quantity(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.DecimalSI) }

// budget is nil for a pool of one: it could never be moved off its node.
func budget(ms *v1alpha1.MicroService, pool Pool) any {
	d := ms.Spec.Disruption
	spec := policyac.PodDisruptionBudgetSpec().WithSelector(labelSelector(selector(ms, pool.Name))).WithUnhealthyPodEvictionPolicy(policyv1.AlwaysAllow)
	switch {
	case d == nil && pool.Floor() < 2:
		return nil
	case d == nil:
		spec.WithMaxUnavailable(intstr.FromInt32(1))
	case d.MaxUnavailable != nil:
		spec.WithMaxUnavailable(*d.MaxUnavailable)
	default:
		spec.WithMinAvailable(*d.MinAvailable)
	}
	return policyac.PodDisruptionBudget(Name(ms, pool.Name), ms.Namespace).WithLabels(labels(ms, pool.Name)).WithOwnerReferences(owner(ms)).WithSpec(spec)
}

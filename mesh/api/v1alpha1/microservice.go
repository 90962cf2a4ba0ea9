package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// MicroService is an application that runs in pools. Each pool is a Deployment of its
// own, so that a traffic group can be served apart from the others; all pools share
// one Service, one account and one network policy.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ms,categories={tracegate,mesh}
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Pods",type=string,JSONPath=`.status.pods`
// +kubebuilder:printcolumn:name="Pools",type=integer,JSONPath=`.status.poolCount`,priority=1
// +kubebuilder:printcolumn:name="Image",type=string,JSONPath=`.spec.image`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 40",message="metadata.name must have at most 40 characters: names of its pools are made from it"
// +kubebuilder:validation:XValidation:rule="!self.metadata.name.contains('.')",message="metadata.name must not contain a dot: clusters at the edge are called SERVICE.POOL"
type MicroService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what should run.
	Spec MicroServiceSpec `json:"spec"`
	// status is what runs.
	// +optional
	Status MicroServiceStatus `json:"status,omitempty"`
}

// MicroServiceSpec says what runs in every pool, and what is different in some.
//
// +kubebuilder:validation:XValidation:rule="!has(self.pools) || self.pools.exists(p, p.name == 'baseline')",message="pools must contain baseline: the edge falls back to it"
// +kubebuilder:validation:XValidation:rule=`!has(self.probes) || [self.probes.?ready.port.orValue(""), self.probes.?live.port.orValue(""), self.probes.?started.port.orValue("")].all(n, n == "" || self.ports.exists(p, p.name == n))`,message="probes must name one of ports"
// +kubebuilder:validation:XValidation:rule=`!has(self.pools) || self.pools.all(pool, !has(pool.probes) || [pool.probes.?ready.port.orValue(""), pool.probes.?live.port.orValue(""), pool.probes.?started.port.orValue("")].all(n, n == "" || self.ports.exists(p, p.name == n)))`,message="probes of a pool must name one of ports"
// +kubebuilder:validation:XValidation:rule="!has(self.scaleIn) || self.ports.exists(p, p.name == self.scaleIn.port)",message="scaleIn must name one of ports"
// +kubebuilder:validation:XValidation:rule="!has(self.replicas) || !has(self.autoscaling)",message="replicas and autoscaling exclude each other: the autoscaler owns the number"
type MicroServiceSpec struct {
	// image is what runs, with a tag or digest.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.contains('@') || self.split('/')[size(self.split('/')) - 1].contains(':')",message="image must have a tag or a digest"
	// +kubebuilder:validation:XValidation:rule="!self.endsWith(':latest')",message="image must not have the tag latest: a restart would run something else"
	Image string `json:"image"`

	// command is the program; the image's own where it is not set.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Command []string `json:"command,omitempty"`

	// args of the program.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Args []string `json:"args,omitempty"`

	// env are variables of the program. TRACEGATE_POOL names the pool and is always set.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:XValidation:rule="self.all(e, e.name != 'TRACEGATE_POOL')",message="env must not set TRACEGATE_POOL: the operator does"
	Env []corev1.EnvVar `json:"env,omitempty"`

	// ports it listens on. The first is the one the edge sends requests to.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(p, self.exists_one(q, q.port == p.port))",message="each port must have a number of its own"
	Ports []Port `json:"ports"`

	// resources of each pod.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`

	// probes tell whether a pod may be sent requests, and whether it must be restarted.
	// +optional
	Probes *Probes `json:"probes,omitempty"`

	// nodeSelector has the labels of the nodes that pods may run on; all nodes where it is not set.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// tolerations are taints of nodes that do not keep pods away.
	// +optional
	Tolerations Tolerations `json:"tolerations,omitempty"`

	// replicas of each pool, where no autoscaling is set; 1 where neither is.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`

	// autoscaling of each pool.
	// +optional
	Autoscaling *Autoscaling `json:"autoscaling,omitempty"`

	// disruption bounds how many pods of a pool may be taken away at one time, by
	// drains of nodes for example. One where it is not set and a pool has more than
	// one pod.
	// +optional
	Disruption *Disruption `json:"disruption,omitempty"`

	// drainSeconds is how long a pod may take to let its connections go.
	// +optional
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3600
	DrainSeconds int64 `json:"drainSeconds"`

	// scaleIn says which pods go first where there are too many. Kubernetes chooses where
	// it is not set.
	// +optional
	ScaleIn *ScaleIn `json:"scaleIn,omitempty"`

	// access says who may connect. Nobody outside the namespace where it is not set.
	// +optional
	Access *Access `json:"access,omitempty"`

	// pools and what is different in each. Only baseline where it is not set.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Pools []Pool `json:"pools,omitempty"`
}

// Tolerations are a list of Kubernetes' own.
//
// +listType=atomic
// +kubebuilder:validation:MaxItems=32
// +kubebuilder:validation:XValidation:rule=`self.all(t, !(has(t.operator) && t.operator == "Exists" && has(t.value) && t.value != ""))`,message="a toleration with the operator Exists must have no value"
// +kubebuilder:validation:XValidation:rule=`self.all(t, has(t.key) && t.key != "" || has(t.operator) && t.operator == "Exists")`,message="a toleration without a key must have the operator Exists"
type Tolerations []corev1.Toleration

// Port is one TCP port.
type Port struct {
	// name of the port.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$`
	Name string `json:"name"`
	// port is its number, in the pod and in the Service.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// appProtocol is what is spoken.
	// +optional
	// +kubebuilder:validation:Enum=http;kubernetes.io/h2c;kubernetes.io/ws;grpc;tcp
	AppProtocol *string `json:"appProtocol,omitempty"`
}

// Probes of each pod, by HTTP.
type Probes struct {
	// ready: the pod is sent requests while this answers 2xx.
	// +optional
	Ready *HTTPProbe `json:"ready,omitempty"`
	// live: the pod is restarted when this stops to answer 2xx.
	// +optional
	Live *HTTPProbe `json:"live,omitempty"`
	// started: the other two wait for this one.
	// +optional
	Started *HTTPProbe `json:"started,omitempty"`
}

// HTTPProbe asks one path.
type HTTPProbe struct {
	// path that is asked.
	// +kubebuilder:validation:Pattern=`^/[^\s]*$`
	// +kubebuilder:validation:MaxLength=256
	Path string `json:"path"`
	// port by its name in ports.
	// +kubebuilder:validation:MaxLength=15
	Port string `json:"port"`
	// periodSeconds between two questions.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=300
	PeriodSeconds int32 `json:"periodSeconds,omitempty"`
	// failureThreshold is how many bad answers in a row count.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	FailureThreshold int32 `json:"failureThreshold,omitempty"`
}

// Autoscaling keeps a pool between two bounds.
//
// +kubebuilder:validation:XValidation:rule="self.minReplicas <= self.maxReplicas",message="minReplicas must not be above maxReplicas"
type Autoscaling struct {
	// minReplicas is never gone below.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MinReplicas int32 `json:"minReplicas"`
	// maxReplicas is never gone above.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxReplicas int32 `json:"maxReplicas"`
	// metrics: the one that asks for the most pods counts.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Metrics []ScaleMetric `json:"metrics"`
	// scaleDownSeconds is how long fewer pods must have been enough before some go.
	// +optional
	// +kubebuilder:default=300
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3600
	ScaleDownSeconds int32 `json:"scaleDownSeconds"`
}

// ScaleMetric is one figure and what it should be.
//
// +kubebuilder:validation:XValidation:rule="[has(self.cpuPercent), has(self.qpsPerPod), has(self.errorFreeQPSPerPod), has(self.p95Milliseconds)].filter(x, x).size() == 1",message="a metric must have exactly one of cpuPercent, qpsPerPod, errorFreeQPSPerPod and p95Milliseconds"
// +kubebuilder:validation:XValidation:rule="!has(self.trafficGroup) || !has(self.cpuPercent)",message="trafficGroup needs qpsPerPod, errorFreeQPSPerPod or p95Milliseconds: processors are not measured by group"
type ScaleMetric struct {
	// cpuPercent of what pods request.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	CPUPercent *int32 `json:"cpuPercent,omitempty"`
	// qpsPerPod is requests a second that one pod should get, measured at the edge.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	QPSPerPod *int64 `json:"qpsPerPod,omitempty"`
	// errorFreeQPSPerPod is requests a second without an error that one pod should get: pods are not
	// added for requests that fail at once, and clients that try again.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	ErrorFreeQPSPerPod *int64 `json:"errorFreeQPSPerPod,omitempty"`
	// p95Milliseconds is what 95 in 100 requests should take at most, of the slowest group. Twice as much
	// doubles the pods, up to maxReplicas, also where more of them do not help: have a second metric, and mind
	// what the service waits for.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600000
	P95Milliseconds *int64 `json:"p95Milliseconds,omitempty"`
	// trafficGroup counts only requests of the TrafficGroup of this name, in the same
	// namespace; all of the pool where it is not set.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	TrafficGroup string `json:"trafficGroup,omitempty"`
}

// ScaleIn lets the pods go first that have the least of something, open connections for
// example, which all have to move.
type ScaleIn struct {
	// port by its name in ports, at which pods answer GET /metrics in Prometheus' format.
	Port string `json:"port"`
	// metric is a gauge; where it has several series their sum counts.
	// +optional
	// +kubebuilder:default=core_sockets
	// +kubebuilder:validation:Pattern=`^[a-zA-Z_:][a-zA-Z0-9_:]*$`
	// +kubebuilder:validation:MaxLength=128
	Metric string `json:"metric,omitempty"`
}

// Disruption is a bound in pods or percent.
//
// +kubebuilder:validation:XValidation:rule="has(self.minAvailable) != has(self.maxUnavailable)",message="disruption must have exactly one of minAvailable and maxUnavailable"
type Disruption struct {
	// minAvailable is how many pods of a pool must be left.
	// +optional
	MinAvailable *intstr.IntOrString `json:"minAvailable,omitempty"`
	// maxUnavailable is how many may be away.
	// +optional
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
}

// Access is a list of who may connect; anyone else may not.
type Access struct {
	// from, each a peer.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	From []Peer `json:"from"`
}

// Peer is a set of pods.
//
// +kubebuilder:validation:XValidation:rule="has(self.service) || has(self.namespace)",message="a peer must have a service, a namespace or both"
type Peer struct {
	// service is the name of a MicroService; all pods of the namespace where it is not set.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:MinLength=1
	Service string `json:"service,omitempty"`
	// namespace it is in; this one where it is not set.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:MinLength=1
	Namespace string `json:"namespace,omitempty"`
}

// Pool is a set of pods that serve the same. What is not set is as in the service.
//
// +kubebuilder:validation:XValidation:rule="!has(self.replicas) || !has(self.autoscaling)",message="replicas and autoscaling exclude each other: the autoscaler owns the number"
type Pool struct {
	// name of the pool, e.g. baseline, canary or isolated.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`
	Name string `json:"name"`
	// image instead of the service's.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Image string `json:"image,omitempty"`
	// command instead of the service's; an empty list is the image's own.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Command []string `json:"command,omitzero"`
	// args instead of the service's, all of them; an empty list is none.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Args []string `json:"args,omitzero"`
	// env in addition to the service's; the same name wins over it.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:XValidation:rule="self.all(e, e.name != 'TRACEGATE_POOL')",message="env must not set TRACEGATE_POOL: the operator does"
	Env []corev1.EnvVar `json:"env,omitempty"`
	// resources instead of the service's.
	// +optional
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`
	// probes instead of the service's, all of them; an empty object is none.
	// +optional
	Probes *Probes `json:"probes,omitempty"`
	// nodeSelector instead of the service's; an empty object is all nodes.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	NodeSelector map[string]string `json:"nodeSelector,omitzero"`
	// tolerations instead of the service's, all of them; an empty list is none.
	// +optional
	Tolerations Tolerations `json:"tolerations,omitzero"`
	// replicas instead of the service's replicas or autoscaling.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`
	// autoscaling instead of the service's replicas or autoscaling.
	// +optional
	Autoscaling *Autoscaling `json:"autoscaling,omitempty"`
}

// MicroServiceStatus is what the operator has seen.
type MicroServiceStatus struct {
	// observedGeneration is the generation that all of the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Ready, Programmed, Progressing, Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// pods is ready/wanted of all pools.
	// +optional
	Pods string `json:"pods,omitempty"`
	// poolCount is how many pools run.
	// +optional
	PoolCount int32 `json:"poolCount,omitempty"`
	// pools, each by itself.
	// +optional
	// +listType=map
	// +listMapKey=name
	Pools []PoolStatus `json:"pools,omitempty"`
}

// PoolStatus is one pool.
type PoolStatus struct {
	// name of the pool.
	Name string `json:"name"`
	// wanted pods.
	Wanted int32 `json:"wanted"`
	// ready pods.
	Ready int32 `json:"ready"`
	// updated pods are of the newest template.
	Updated int32 `json:"updated"`
}

// MicroServiceList is several.
//
// +kubebuilder:object:root=true
type MicroServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MicroService `json:"items"`
}

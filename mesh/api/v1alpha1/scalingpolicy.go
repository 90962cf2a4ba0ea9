package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ScalingPolicy says how many pods a pool gets before it needs them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=scp,categories={tracegate,mesh}
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.target.service`
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.target.pool`
// +kubebuilder:printcolumn:name="Group",type=string,JSONPath=`.spec.trafficGroup`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Floor",type=integer,JSONPath=`.status.floor`
// +kubebuilder:printcolumn:name="Until",type=date,JSONPath=`.status.until`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ScalingPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the policy.
	Spec ScalingPolicySpec `json:"spec"`
	// status is what it has done.
	// +optional
	Status ScalingPolicyStatus `json:"status,omitempty"`
}

// ScalingPolicySpec raises the floor of a pool's autoscaler while a traffic group
// brings, or is about to bring, more than its pods can serve. Scaling in stays the
// autoscaler's.
//
// +kubebuilder:validation:XValidation:rule="self.bounds.min <= self.bounds.max",message="bounds.min must not be above bounds.max"
// +kubebuilder:validation:XValidation:rule="!has(self.maxStep) || self.maxStep <= self.bounds.max",message="maxStep must not be above bounds.max"
type ScalingPolicySpec struct {
	// target is the pool that is scaled.
	Target ScaleTarget `json:"target"`
	// trafficGroup whose rate is looked at; all requests of the pool where it is not set.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	TrafficGroup string `json:"trafficGroup,omitempty"`
	// qpsPerPod is requests a second that one pod serves well.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	QPSPerPod int64 `json:"qpsPerPod"`
	// bounds of the floor. max is the budget: no forecast goes beyond it.
	Bounds Bounds `json:"bounds"`
	// leadSeconds is how far ahead the rate is forecast; 0 looks at the present only.
	// +optional
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=900
	LeadSeconds int32 `json:"leadSeconds"`
	// holdSeconds is how long a raised floor stays where nothing renews it.
	// +optional
	// +kubebuilder:default=120
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=3600
	HoldSeconds int32 `json:"holdSeconds,omitempty"`
	// cooldownSeconds between two raises.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=600
	CooldownSeconds int32 `json:"cooldownSeconds"`
	// maxStep is how many pods one raise adds at most.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxStep *int32 `json:"maxStep,omitempty"`
	// callPath raises, together with the target, the other pools of this namespace that
	// serve the group's requests, as its traces show. Not done where it is not set.
	// +optional
	CallPath *CallPath `json:"callPath,omitempty"`
}

// CallPath bounds what is raised besides the target. What a pod of a pool serves, and how
// many pods it may have, is said by its MicroService's autoscaling, with a metric
// qpsPerPod; pools without are left alone.
type CallPath struct {
	// budget is how many pods all of them together get at most, above what their
	// autoscalers keep; where more are needed each gets its share.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Budget int32 `json:"budget"`
}

// ScaleTarget is one pool of one service.
type ScaleTarget struct {
	// service is the name of a MicroService in the same namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Service string `json:"service"`
	// pool of it.
	// +optional
	// +kubebuilder:default=baseline
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`
	Pool string `json:"pool,omitempty"`
}

// Bounds in pods.
type Bounds struct {
	// min that a raise goes to.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Min int32 `json:"min"`
	// max that a raise goes to.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Max int32 `json:"max"`
}

// ScalingPolicyStatus is what the policy has done last.
type ScalingPolicyStatus struct {
	// observedGeneration is the generation that all of the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Ready, Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// floor that was set; 0 where none is.
	// +optional
	Floor int32 `json:"floor,omitempty"`
	// path is what other pools on the call path got.
	// +optional
	// +listType=map
	// +listMapKey=service
	// +listMapKey=pool
	Path []PathFloor `json:"path,omitempty"`
	// until is when the floors end.
	// +optional
	Until *metav1.Time `json:"until,omitempty"`
}

// PathFloor is one pool on the call path.
type PathFloor struct {
	// service is the MicroService.
	Service string `json:"service"`
	// pool of it.
	Pool string `json:"pool"`
	// floor that was set.
	Floor int32 `json:"floor"`
}

// ScalingPolicyList is several.
//
// +kubebuilder:object:root=true
type ScalingPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ScalingPolicy `json:"items"`
}

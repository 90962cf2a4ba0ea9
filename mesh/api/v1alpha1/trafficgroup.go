package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TrafficGroup gives a name to requests that are measured, moved and scaled together,
// so that ScalingPolicies and autoscalers can speak of them, and says what decisions on
// them are held against. Of several that select the same group the oldest counts, and the
// policy file before all.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=tg,categories={tracegate,mesh}
// +kubebuilder:printcolumn:name="Group",type=string,JSONPath=`.status.group`
// +kubebuilder:printcolumn:name="Env",type=string,JSONPath=`.spec.selector.env`
// +kubebuilder:printcolumn:name="Tenant",type=string,JSONPath=`.spec.selector.tenant`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrafficGroup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says which requests they are.
	Spec TrafficGroupSpec `json:"spec"`
	// status is what follows from it.
	// +optional
	Status TrafficGroupStatus `json:"status,omitempty"`
}

// TrafficGroupSpec is a group and what is expected of it.
type TrafficGroupSpec struct {
	// selector of its requests.
	Selector GroupSelector `json:"selector"`
	// objectives that it should keep; the policy's where they are not set.
	// +optional
	Objectives *Objectives `json:"objectives,omitempty"`
	// mode says how far decisions on it go: Observe records them, Recommend tells
	// people as well, Act carries them out, whatever the policy does with other groups.
	// The policy's where it is not set.
	// +optional
	// +kubebuilder:validation:Enum=Observe;Recommend;Act
	Mode string `json:"mode,omitempty"`
}

// GroupSelector names one group, as the edge's filter does.
//
// +kubebuilder:validation:XValidation:rule="has(self.id) != (has(self.env) || has(self.tenant) || has(self.color))",message="selector must have either id, or env and tenant with an optional color"
// +kubebuilder:validation:XValidation:rule="has(self.id) || (has(self.env) && has(self.tenant))",message="selector must have both env and tenant"
type GroupSelector struct {
	// id as telemetry shows it.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{6}$`
	ID string `json:"id,omitempty"`
	// color of the requests' trace; 00000000, no cohort, where it is not set.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}$`
	Color string `json:"color,omitempty"`
	// env of the requests.
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$`
	Env string `json:"env,omitempty"`
	// tenant of the requests.
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$`
	Tenant string `json:"tenant,omitempty"`
}

// Objectives are bounds over a few seconds.
//
// +kubebuilder:validation:XValidation:rule="has(self.maxErrorRatio) || has(self.maxP95Milliseconds) || has(self.maxP99Milliseconds)",message="objectives must have at least one bound"
type Objectives struct {
	// maxErrorRatio from 0 to 1, e.g. 50m for 0.05.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0 && quantity(string(self)).compareTo(quantity('1')) <= 0",message="maxErrorRatio must be between 0 and 1"
	MaxErrorRatio *resource.Quantity `json:"maxErrorRatio,omitempty"`
	// maxP95Milliseconds that 95 in 100 requests take at most.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=600000
	MaxP95Milliseconds *int64 `json:"maxP95Milliseconds,omitempty"`
	// maxP99Milliseconds that 99 in 100 requests take at most, for faults of few requests.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=600000
	MaxP99Milliseconds *int64 `json:"maxP99Milliseconds,omitempty"`
}

// TrafficGroupStatus is what follows from the selector.
type TrafficGroupStatus struct {
	// observedGeneration is the generation that all of the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Ready, Accepted, Programmed, Progressing, Stalled. The control plane
	// writes them.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// group is the id by which telemetry and the edge name it.
	// +optional
	Group string `json:"group,omitempty"`
}

// TrafficGroupList is several.
//
// +kubebuilder:object:root=true
type TrafficGroupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrafficGroup `json:"items"`
}

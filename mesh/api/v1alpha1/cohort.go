package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Cohort is a set of requests that get a color of their own at the edge, and a pool.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories={tracegate,mesh}
// +kubebuilder:printcolumn:name="Env",type=string,JSONPath=`.spec.env`
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 40",message="metadata.name must have at most 40 characters"
type Cohort struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says who is in it.
	Spec CohortSpec `json:"spec"`
	// status says whether the control plane uses it.
	// +optional
	Status CohortStatus `json:"status,omitempty"`
}

// CohortSpec is a cohort of the edge's policy. Cohorts of a cluster come after those
// of the policy file, in the order of their names.
type CohortSpec struct {
	// color of its traces; one made from its name where it is not set.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}$`
	// +kubebuilder:validation:XValidation:rule="self != '00000000'",message="00000000 is the color of requests in no cohort"
	Color string `json:"color,omitempty"`
	// env of its requests; the policy's where it is not set.
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$`
	Env string `json:"env,omitempty"`
	// pool that serves it; baseline where it is not set.
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`
	Pool string `json:"pool,omitempty"`
	// any: requests for which any of these conditions holds.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Any []CohortMatch `json:"any"`
}

// CohortMatch is one condition.
//
// +kubebuilder:validation:XValidation:rule="[has(self.header), has(self.cookie), has(self.host)].filter(x, x).size() == 1",message="a condition must have exactly one of header, cookie and host"
type CohortMatch struct {
	// header with this value.
	// +optional
	Header *NamedValue `json:"header,omitempty"`
	// cookie with this value.
	// +optional
	Cookie *NamedValue `json:"cookie,omitempty"`
	// host, exact or with a * at one end.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host,omitempty"`
}

// NamedValue is a name and what it must be.
type NamedValue struct {
	// name of the header or cookie.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`
	// exact value.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Exact string `json:"exact"`
}

// CohortStatus says whether the control plane uses the cohort.
type CohortStatus struct {
	// observedGeneration is the generation that all of the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Ready, Accepted, Programmed, Progressing, Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CohortList is several.
//
// +kubebuilder:object:root=true
type CohortList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Cohort `json:"items"`
}

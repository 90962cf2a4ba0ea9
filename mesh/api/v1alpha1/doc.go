// Package v1alpha1 is what a cluster's users write: microservices with their pools,
// traffic groups, how they scale, routes and cohorts (API group mesh.tracegate.io).
//
// It holds types only. What a field may be is said by markers, from which
// `go tool task generate` makes the resource definitions in mesh/deploy: the API
// server refuses the rest before anything of ours sees it. mesh/operator turns a
// MicroService into Kubernetes' own resources, controlplane/source/kubernetes hands
// Routes and Cohorts to the control plane, in whose policy they are checked again
// together with everything else.
//
// Fractions are quantities ("50m" is 0.05), since the API conventions have no floats.
//
// +kubebuilder:object:generate=true
// +groupName=mesh.tracegate.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group is the API group of all types here.
const Group = "mesh.tracegate.io"

// GroupVersion names this version of the group.
var GroupVersion = schema.GroupVersion{Group: Group, Version: "v1alpha1"}

// AddToScheme makes clients know the types.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&MicroService{}, &MicroServiceList{}, &TrafficGroup{}, &TrafficGroupList{}, &ScalingPolicy{}, &ScalingPolicyList{},
		&Route{}, &RouteList{}, &Cohort{}, &CohortList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

// What the control plane notes at a ScalingPolicy: requests a second that a decision is
// about to bring to its pool, and until when (RFC 3339) that counts.
const (
	AnnotationRoom      = Group + "/room"
	AnnotationRoomUntil = Group + "/room-until"
)

// Conditions that resources report, each with the generation it is about.
const (
	// Ready: it does what it is for.
	ConditionReady = "Ready"
	// Programmed: everything that follows from it is in place.
	ConditionProgrammed = "Programmed"
	// Progressing: a change is on its way.
	ConditionProgressing = "Progressing"
	// Stalled: it does not get further by itself; the reason says what to do.
	ConditionStalled = "Stalled"
	// Accepted: its content can be used together with everything else.
	ConditionAccepted = "Accepted"
)

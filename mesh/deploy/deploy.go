// Package deploy holds what is installed into a cluster: a Helm chart (chart), with the
// definitions of our resources (chart/crds, generated from mesh/api) and the operator's and
// the control plane's rights (chart/files, generated from their code); the same for kustomize (kustomize,
// kustomize-metrics); an example of each of our resources (samples), and of what lies
// around them in a cluster (platform).
//
// The chart is the source. kustomize takes definitions and rights from the chart's own
// files, and its operator.yaml and controlplane.yaml are the chart, rendered: charttest, a module of its own,
// writes it, and holds that both ways install the same. Helm stays out of go.mod and of
// the binary that way.
//
// A chart that is made from the kustomization (helmify and the like) lost: values would be
// guessed from what happens to differ, and a person reads charts, not their generators.
package deploy

import "embed"

// CRDs are the resource definitions, one file each.
//
//go:embed chart/crds/mesh.*.yaml
var CRDs embed.FS

// RBAC is what the operator may do (ClusterRole and Role tracegate-operator), and what a control plane
// may do in the namespaces that it reads (ClusterRole tracegate-controlplane).
//
//go:embed chart/files/role.yaml chart/files/controlplane.yaml
var RBAC embed.FS

// Kustomize installs the operator, and the account of a control plane, into the namespace tracegate.
//
//go:embed kustomize/namespace.yaml kustomize/controlplane.yaml kustomize/operator.yaml
var Kustomize embed.FS

// Samples are resources that a cluster with the definitions accepts, one kind a file.
//
//go:embed samples/*.yaml
var Samples embed.FS

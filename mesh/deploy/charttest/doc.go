// Package charttest holds that the Helm chart and the kustomizations install the same. It
// is a module of its own, so that Helm and kustomize, as libraries, are no dependency of
// the product: `go tool task test:chart` runs it.
package charttest

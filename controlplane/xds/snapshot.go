// Package xds renders a plan as Envoy resources: listeners, certificates, route configuration,
// virtual hosts, clusters, endpoints and the filters' extension configuration. The same plan
// gives the same bytes and so the same versions, on every machine.
//
// It is pure. It does not send anything (controlplane/server does) and decides
// nothing (controlplane/plan and controlplane/decide did). docs/architecture.md,
// section "Routes", is the contract of what it renders.
package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type is one of the discovery services an edge subscribes to.
type Type int

// The types, in the order in which an edge can make use of them.
const (
	Clusters     Type = iota // CDS
	Endpoints                // EDS
	Secrets                  // SDS
	Listeners                // LDS
	Extensions               // ECDS
	Routes                   // RDS
	VirtualHosts             // VHDS
	ScopedRoutes             // SRDS; rendered by nobody here, and served as the others are
	Runtimes                 // RTDS; likewise
	NumTypes     int  = iota
)

var typeNames = [NumTypes]string{"cds", "eds", "sds", "lds", "ecds", "rds", "vhds", "srds", "rtds"}

var typeURLs = [NumTypes]string{
	"type.googleapis.com/envoy.config.cluster.v3.Cluster",
	"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
	"type.googleapis.com/envoy.config.listener.v3.Listener",
	"type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
	"type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
	"type.googleapis.com/envoy.config.route.v3.VirtualHost",
	"type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
	"type.googleapis.com/envoy.service.runtime.v3.Runtime",
}

// String is the short name used in metrics and logs.
func (t Type) String() string { return typeNames[t] }

// URL is the type URL of the resources.
func (t Type) URL() string { return typeURLs[t] }

// TypeOf is the inverse of [Type.URL].
func TypeOf(url string) (Type, bool) {
	i := slices.Index(typeURLs[:], url)
	return Type(i), i >= 0
}

// Resource is one named resource, rendered.
type Resource struct {
	Name    string
	Version string // hash of Body
	Body    *anypb.Any
}

// Snapshot is a plan as versioned resources. It is shared and never edited.
type Snapshot struct {
	Version   string               // hash of all of it
	Resources [NumTypes][]Resource // sorted by name

	digests [NumTypes][sha256.Size]byte // of each type's names and versions
}

// Find returns the resource of the name.
func (s *Snapshot) Find(t Type, name string) (Resource, bool) {
	i, ok := slices.BinarySearchFunc(s.Resources[t], name, func(r Resource, n string) int { return strings.Compare(r.Name, n) })
	if !ok {
		return Resource{}, false
	}
	return s.Resources[t][i], true
}

// NewSnapshot sorts the resources and computes the version of the whole.
func NewSnapshot(resources [NumTypes][]Resource) *Snapshot { return newSnapshot(resources, nil) }

// newSnapshot takes over from last, where there is one, each type that is last's own.
// It keeps none of the other slices it is given.
func newSnapshot(resources [NumTypes][]Resource, last *Snapshot) *Snapshot {
	s := new(Snapshot)
	whole := sha256.New()
	for t, rs := range resources {
		if last != nil && shared(rs, last.Resources[t]) {
			s.Resources[t], s.digests[t] = rs, last.digests[t]
		} else {
			rs = slices.Clone(rs)
			slices.SortFunc(rs, func(a, b Resource) int { return strings.Compare(a.Name, b.Name) })
			s.Resources[t], s.digests[t] = rs, digest(rs)
		}
		whole.Write(s.digests[t][:])
	}
	s.Version = short(whole.Sum(nil))
	return s
}

func digest(rs []Resource) [sha256.Size]byte {
	var text []byte
	for _, r := range rs {
		text = append(append(append(append(text, r.Name...), 0), r.Version...), 0)
	}
	return sha256.Sum256(text)
}

// VersionOfAll is the version of resources that are sorted by name.
func VersionOfAll(rs []Resource) string {
	sum := digest(rs)
	return short(sum[:])
}

// Changes are, for each type, the names that do not stand for the same in both
// snapshots. What both share in memory costs nothing.
func (s *Snapshot) Changes(to *Snapshot) [NumTypes][]string {
	var out [NumTypes][]string
	for t := range out {
		a, b := s.Resources[t], to.Resources[t]
		if shared(a, b) {
			continue
		}
		for len(a) > 0 || len(b) > 0 {
			switch {
			case len(b) == 0 || len(a) > 0 && a[0].Name < b[0].Name:
				out[t] = append(out[t], a[0].Name)
				a = a[1:]
			case len(a) == 0 || b[0].Name < a[0].Name:
				out[t] = append(out[t], b[0].Name)
				b = b[1:]
			default:
				if a[0].Version != b[0].Version {
					out[t] = append(out[t], a[0].Name)
				}
				a, b = a[1:], b[1:]
			}
		}
	}
	return out
}

// NewResource marshals a message; equal messages give equal versions.
func NewResource(name string, m proto.Message) (Resource, error) {
	body, err := packed(m)
	if err != nil {
		return Resource{}, fmt.Errorf("marshal %s: %w", name, err)
	}
	return Resource{Name: name, Version: VersionOf(body), Body: body}, nil
}

// VersionOf is the version of a rendered resource.
func VersionOf(body *anypb.Any) string {
	sum := sha256.Sum256(body.GetValue())
	return short(sum[:])
}

func short(sum []byte) string { return hex.EncodeToString(sum[:8]) }

func packed(m proto.Message) (*anypb.Any, error) {
	var a anypb.Any
	if err := anypb.MarshalFrom(&a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, err
	}
	return &a, nil
}

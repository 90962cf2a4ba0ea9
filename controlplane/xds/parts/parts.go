// Package parts is how an edge speaks to other parts of its installation: how it names
// itself, and how all of them prove who they are (mesh/identity). Both who writes the bootstrap (edge/bootstrap)
// and who renders clusters (controlplane/xds) need it. It is pure.
package parts

import (
	"fmt"
	"path/filepath"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tracegate/tracegate/mesh/identity"
)

// Files in an edge's own part of the identity folder, by which Envoy knows what lies
// beside them (SDS by path; edge/bootstrap writes them). The control plane has no part
// in it: an edge's key never leaves the edge.
const (
	IdentityFile  = "identity.json"
	AuthorityFile = "authority.json"
)

// ViaVariable is the environment variable of an Envoy with how it names itself in
// requests (mesh/placement, Via); GenerationKey is the key of its generation in what it
// tells the control plane about itself.
const (
	ViaVariable   = "TRACEGATE_VIA"
	GenerationKey = "generation"
)

// SecretURL is the type of what is in these files.
const SecretURL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// TLS is how edges speak to a part. dir is the identity folder as Envoy sees it, absolute.
func TLS(dir string, to identity.Part) (*corev3.TransportSocket, error) {
	file := func(name, path string) *tlsv3.SdsSecretConfig {
		return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{Path: filepath.Join(dir, string(identity.Edge), path)}},
			ResourceApiVersion:    corev3.ApiVersion_V3,
			InitialFetchTimeout:   durationpb.New(0), // without it there is nothing to begin with
		}}
	}
	config, err := anypb.New(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsParams:                      &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
		AlpnProtocols:                  []string{"h2"},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{file("identity", IdentityFile)},
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: &tlsv3.CertificateValidationContext{
					MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
						SanType: tlsv3.SubjectAltNameMatcher_URI,
						Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: identity.URI(to, "")}},
					}},
				},
				ValidationContextSdsSecretConfig: file("authority", AuthorityFile),
			},
		},
	}})
	if err != nil {
		return nil, fmt.Errorf("marshal TLS to %s: %w", to, err)
	}
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: config},
	}, nil
}

package xds

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tracegate/tracegate/controlplane/plan"
)

// caSecret is the name of the authorities in a certificate's folder.
func caSecret(name string) string { return "ca/" + name }

// secrets are the certificates and authorities that listeners and clusters name. One
// that was never good is not among them: an edge keeps what it has.
func (b *Builder) secrets(p plan.Plan) error {
	for _, s := range p.Secrets {
		pair := s.Pair
		if pair.HasKey() {
			from := [2]string{pair.Chain, string(pair.Key)}
			if err := b.put(Secrets, s.Name, from, func() (validated, error) {
				return &tlsv3.Secret{Name: s.Name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
					CertificateChain: inline(pair.Chain),
					PrivateKey:       inline(string(pair.Key)),
				}}}, nil
			}); err != nil {
				return err
			}
		}
		if pair.CA == "" {
			continue
		}
		if err := b.put(Secrets, caSecret(s.Name), pair.CA, func() (validated, error) {
			return &tlsv3.Secret{Name: caSecret(s.Name), Type: &tlsv3.Secret_ValidationContext{
				ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(pair.CA)},
			}}, nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func inline(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}

// secretFrom asks for a secret. A listener waits a moment for it, and then serves with
// what it has: handshakes for a certificate that is not there fail, the others do not.
func secretFrom(name string) *tlsv3.SdsSecretConfig {
	source := ads()
	source.InitialFetchTimeout = durationpb.New(2 * time.Second)
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: source}
}

// upstreamTLS makes a cluster speak TLS to instances that prove who they are.
func upstreamTLS(c *clusterv3.Cluster, pool plan.Pool) error {
	t := pool.TLS
	if t == nil {
		return nil
	}
	common := &tlsv3.CommonTlsContext{
		TlsParams: tlsParameters(""),
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: &tlsv3.CertificateValidationContext{
					MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
						SanType: tlsv3.SubjectAltNameMatcher_DNS,
						Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: t.ServerName}},
					}},
				},
				ValidationContextSdsSecretConfig: secretFrom(caSecret(t.CA)),
			},
		},
	}
	if speaksHTTP2(pool) {
		common.AlpnProtocols = []string{"h2"}
	}
	if t.Certificate != "" {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{secretFrom(t.Certificate)}
	}
	config, err := packed(&tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: t.ServerName})
	if err != nil {
		return err
	}
	c.TransportSocket = &corev3.TransportSocket{
		Name:       tlsSocket,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: config},
	}
	return nil
}

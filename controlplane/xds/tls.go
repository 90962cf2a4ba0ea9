package xds

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	quicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/quic/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
)

// Names of what serves encrypted connections.
const (
	TLSListenerName  = "edge-tls"
	QUICListenerName = "edge-quic"
	RedirectName     = "redirect"    // statistics of the listener that sends everyone to TLS
	TLSHeadersName   = "tls-headers" // filter that adds HSTS and alt-svc, and its ECDS resource
)

// chain is a filter chain of a listener: who asks for one of the hosts is shown the
// certificate. Each certificate has a chain of its own, so that one that comes or goes
// drains no connection of another, and a secret of its own, so that one that is
// renewed drains nothing at all.
type chain struct {
	certificate string
	hosts       []string // none: everyone else
}

// entrances are the listeners of an edge.
func (b *Builder) entrances(p plan.Plan) error {
	for _, e := range entrances(p) {
		if err := b.put(Listeners, e.name, e, func() (validated, error) { return e.render() }); err != nil {
			return err
		}
	}
	if p.TLS == nil {
		return nil
	}
	headers := tlsHeaders{hsts: p.TLS.HSTS}
	if p.Edge.TLS.HTTP3 {
		headers.http3 = p.Edge.TLS.Listen
	}
	return b.put(Extensions, TLSHeadersName, headers, func() (validated, error) { return headers.render() })
}

func entrances(p plan.Plan) []entrance {
	plain := entrance{name: ListenerName, listen: p.Edge.Listen, hops: p.Edge.TrustedHops}
	if p.TLS == nil {
		return []entrance{plain}
	}
	if p.Edge.TLS.Redirect {
		plain.redirect = portOf(p.Edge.TLS.Listen)
	}
	encrypted := entrance{name: TLSListenerName, listen: p.Edge.TLS.Listen, hops: p.Edge.TrustedHops, minVersion: p.TLS.MinVersion}
	for _, c := range p.TLS.Certificates {
		encrypted.chains = append(encrypted.chains, chain{c.Name, c.Hosts})
	}
	out := []entrance{plain, encrypted}
	if p.Edge.TLS.HTTP3 {
		quic := encrypted
		quic.name, quic.quic = QUICListenerName, true
		out = append(out, quic)
	}
	return out
}

// portOf is for addresses that a plan has checked.
func portOf(listen string) uint32 { return uint32(netip.MustParseAddrPort(listen).Port()) }

// encrypt gives a listener a filter chain for each certificate.
func (e entrance) encrypt(l *listenerv3.Listener, filters []*listenerv3.Filter) error {
	for _, c := range e.chains {
		socket, err := packed(e.transport(c.certificate))
		if err != nil {
			return fmt.Errorf("marshal TLS of certificate %s: %w", c.certificate, err)
		}
		fc := &listenerv3.FilterChain{
			Name:    c.certificate,
			Filters: filters,
			TransportSocket: &corev3.TransportSocket{
				Name:       e.socketName(),
				ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: socket},
			},
		}
		if len(c.hosts) > 0 {
			fc.FilterChainMatch = &listenerv3.FilterChainMatch{ServerNames: c.hosts}
		}
		if !e.quic {
			fc.TransportSocketConnectTimeout = durationpb.New(handshakeTimeout)
		}
		l.FilterChains = append(l.FilterChains, fc)
	}
	if e.quic {
		return e.overUDP(l)
	}
	inspector, err := packed(&inspectorv3.TlsInspector{})
	if err != nil {
		return fmt.Errorf("marshal TLS inspector: %w", err)
	}
	l.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name:       "envoy.filters.listener.tls_inspector",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: inspector},
	}}
	l.ListenerFiltersTimeout = durationpb.New(handshakeTimeout)
	return nil
}

// handshakeTimeout bounds how long a client may take to become one.
const handshakeTimeout = 10 * time.Second

const tlsSocket = "envoy.transport_sockets.tls"

func (e entrance) socketName() string {
	if e.quic {
		return "envoy.transport_sockets.quic"
	}
	return tlsSocket
}

func (e entrance) transport(certificate string) validated {
	context := &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsParams:                      tlsParameters(e.minVersion),
		AlpnProtocols:                  []string{"h2", "http/1.1"},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{secretFrom(certificate)},
	}}
	if !e.quic {
		return context
	}
	context.CommonTlsContext.AlpnProtocols = []string{"h3"}
	context.CommonTlsContext.TlsParams = nil // QUIC is TLS 1.3 with its own suites
	// No early data: a request in it can be replayed by whoever recorded it.
	return &quicv3.QuicDownstreamTransport{DownstreamTlsContext: context, EnableEarlyData: wrapperspb.Bool(false)}
}

// tlsParameters are those of TLS 1.2 and later. Suites are for 1.2: forward secret and
// authenticated ones only; those of 1.3 all are.
func tlsParameters(least string) *tlsv3.TlsParameters {
	p := &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		CipherSuites: []string{
			"[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
			"[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]",
			"ECDHE-ECDSA-AES256-GCM-SHA384",
			"ECDHE-RSA-AES256-GCM-SHA384",
		},
	}
	if least == "1.3" {
		p.TlsMinimumProtocolVersion, p.CipherSuites = tlsv3.TlsParameters_TLSv1_3, nil
	}
	return p
}

func (e entrance) overUDP(l *listenerv3.Listener) error {
	l.Address.GetSocketAddress().Protocol = corev3.SocketAddress_UDP
	l.MaxConnectionsToAcceptPerSocketEvent = nil // of TCP
	l.UdpListenerConfig = &listenerv3.UdpListenerConfig{
		QuicOptions: &listenerv3.QuicProtocolOptions{
			QuicProtocolOptions:    quicOptions(),
			CryptoHandshakeTimeout: durationpb.New(handshakeTimeout),
		},
		DownstreamSocketConfig: &corev3.UdpSocketConfig{PreferGro: wrapperspb.Bool(true)},
	}
	return nil
}

func quicOptions() *corev3.QuicProtocolOptions {
	return &corev3.QuicProtocolOptions{
		MaxConcurrentStreams:        wrapperspb.UInt32(maxStreams),
		InitialStreamWindowSize:     wrapperspb.UInt32(streamWindow),
		InitialConnectionWindowSize: wrapperspb.UInt32(connectionWindow),
	}
}

// redirectAll sends everyone to the same by TLS. 308 keeps the method and the body.
func redirectAll(port uint32) *hcmv3.HttpConnectionManager_RouteConfig {
	redirect := &routev3.RedirectAction{
		SchemeRewriteSpecifier: &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true},
		ResponseCode:           routev3.RedirectAction_PERMANENT_REDIRECT,
	}
	if port != 443 {
		redirect.PortRedirect = port
	}
	return &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
		Name: RedirectName,
		VirtualHosts: []*routev3.VirtualHost{{
			Name: RedirectName, Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Name:   RedirectName,
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Redirect{Redirect: redirect},
			}},
		}},
	}}
}

// tlsHeaders is what responses say about TLS. It comes by ECDS, so that it can change
// without touching the listener.
type tlsHeaders struct {
	hsts  *policy.HSTS
	http3 string // address, empty: none
}

func (h tlsHeaders) render() (validated, error) {
	m := &headermutationv3.Mutations{}
	set := func(name, value string) {
		m.ResponseMutations = append(m.ResponseMutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{
			Append: &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: name, Value: value},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			},
		}})
	}
	if h.hsts != nil {
		set("strict-transport-security", hstsValue(*h.hsts))
	}
	if h.http3 != "" {
		set("alt-svc", fmt.Sprintf(`h3=":%d"; ma=86400`, portOf(h.http3)))
	}
	config := &headermutationv3.HeaderMutation{Mutations: m}
	if err := config.ValidateAll(); err != nil {
		return nil, fmt.Errorf("validate %s: %w", TLSHeadersName, err)
	}
	a, err := packed(config)
	if err != nil {
		return nil, fmt.Errorf("marshal %s: %w", TLSHeadersName, err)
	}
	return extensionConfig(TLSHeadersName, a), nil
}

func extensionConfig(name string, config *anypb.Any) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: config}
}

func hstsValue(h policy.HSTS) string {
	v := "max-age=" + strconv.FormatInt(int64(h.MaxAge/time.Second), 10)
	if h.IncludeSubdomains {
		v += "; includeSubDomains"
	}
	if h.Preload {
		v += "; preload"
	}
	return v
}

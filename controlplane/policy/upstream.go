package policy

import (
	"strings"
)

// Protocol is what edges speak to the instances of a pool.
type Protocol string

// The protocols. GRPC is HTTP/2 whose instances are checked by gRPC's health service
// (grpc.health.v1). WebSockets need HTTP1.
const (
	HTTP1 Protocol = "http1" // where a pool says nothing
	HTTP2 Protocol = "http2"
	GRPC  Protocol = "grpc"
)

// UpstreamTLS is how edges and instances prove to each other who they are. CA and
// Certificate are names in the certificates folder.
type UpstreamTLS struct {
	ServerName  string `yaml:"serverName"`            // that an instance's certificate must be for
	CA          string `yaml:"ca"`                    // whose ca.crt has signed it
	Certificate string `yaml:"certificate,omitempty"` // that edges show; empty: none
}

func (d *document) checkUpstream(at string, p Pool) {
	switch p.Protocol {
	case "", HTTP1, HTTP2:
	case GRPC:
		if p.HealthCheck != nil && p.HealthCheck.Path != "" {
			d.invalid(at+".healthCheck.path", "gRPC instances are asked by grpc.health.v1, which has no path")
		}
	default:
		d.invalid(at+".protocol", "%q is none of %q, %q and %q", clip(string(p.Protocol)), HTTP1, HTTP2, GRPC)
	}
	t := p.TLS
	if t == nil {
		return
	}
	if t.ServerName == "" || strings.HasPrefix(t.ServerName, "*") {
		d.invalid(at+".tls.serverName", "missing or not one name: nothing else says that an instance is the right one")
	} else {
		d.checkHost(at+".tls.serverName", t.ServerName)
	}
	d.checkName(at+".tls.ca", t.CA)
	if t.Certificate != "" {
		d.checkName(at+".tls.certificate", t.Certificate)
	}
}

package server_test

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/mesh/identity"
	"github.com/tracegate/tracegate/mesh/identity/identitytest"
)

// TestEdgesProveWhoTheyAre: an edge is served under the name in its certificate and
// under no other, and nobody else is.
func TestEdgesProveWhoTheyAre(t *testing.T) {
	t.Parallel()
	ca, dir, foreign := identitytest.NewAuthority(t), t.TempDir(), t.TempDir()
	identitytest.Put(t, dir, ca, identity.ControlPlane, "")
	identitytest.Put(t, dir, ca, identity.Edge, "edge-7")
	identitytest.Put(t, dir, ca, identity.Core, "")
	identitytest.Put(t, foreign, identitytest.NewAuthority(t), identity.Edge, "edge-7")
	c := start(t, func(cfg *server.Config) { cfg.TLS = identitytest.Load(t, dir, identity.ControlPlane).Server(true) })
	snap := snapshot(t, nil)
	c.Set(snap)
	identitytest.Write(t, foreign+"/"+identity.CAFile, ca.Chain) // it believes the control plane, and not the other way round
	as := func(dir string, p identity.Part) credentials.TransportCredentials {
		return credentials.NewTLS(identitytest.Load(t, dir, p).Client(identity.ControlPlane))
	}
	servertest.Connect(t, c.addr, servertest.Options{ID: "edge-7", TLS: identitytest.Load(t, dir, identity.Edge).Client(identity.ControlPlane)})
	c.inSync(snap)
	for name, tt := range map[string]struct {
		id   string
		as   credentials.TransportCredentials
		want codes.Code
	}{
		"under another name":    {"edge-1", as(dir, identity.Edge), codes.PermissionDenied},
		"another part":          {"edge-7", as(dir, identity.Core), codes.PermissionDenied},
		"of another authority":  {"edge-7", as(foreign, identity.Edge), codes.Unavailable},
		"without a certificate": {"edge-7", credentials.NewTLS(identity.Trust(dir, identity.ControlPlane)), codes.Unavailable},
		"unencrypted":           {"edge-7", insecure.NewCredentials(), codes.Unavailable},
	} {
		if err := attempt(t, c.addr, tt.id, tt.as); status.Code(err) != tt.want {
			t.Errorf("%s: ended with %v, want %v", name, err, tt.want)
		}
	}
	if n := testutil.CollectAndCount(c.reg, "tracegate_xds_streams_refused_total"); n != 1 {
		t.Errorf("%d reasons are counted, want the identity alone", n)
	}
	for _, e := range c.Edges() {
		if e.ID != "edge-7" {
			t.Errorf("edge %q is known", e.ID)
		}
	}
}

// attempt is why a stream ended that must not be served.
func attempt(t *testing.T, addr, id string, creds credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		return err
	}
	// Where the stream has ended, Recv says why.
	_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: id}, TypeUrl: xds.Clusters.URL()})
	_, err = stream.Recv()
	return err
}

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tracegate/tracegate/observability/semconv"
)

const grpcPolicy = `
  - name: calls
    pools: [{name: baseline, protocol: grpc}]
    rules:
      - name: from browsers
        match: [{prefix: /grpc.testing.TestService, methods: [OPTIONS, POST], headers: [{name: origin, present: true}]}]
        grpc: true
        cors: {origins: ["https://app.test"], methods: [POST], headers: [content-type, x-grpc-web], exposeHeaders: [grpc-status, grpc-message]}
    routes: [{name: calls, prefix: /grpc.testing.TestService, grpc: true}]
`

// callee is a gRPC service with its health service.
type callee struct {
	testpb.UnimplementedTestServiceServer
}

func (callee) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if r.GetResponseStatus().GetCode() != 0 {
		return nil, status.Error(codes.Code(r.GetResponseStatus().GetCode()), r.GetResponseStatus().GetMessage())
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return &testpb.SimpleResponse{Username: strings.Join(md.Get(semconv.HeaderGroup), ","), Payload: r.GetPayload()}, nil
}

// FullDuplexCall echoes, until the client has no more.
func (callee) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}

func startCallee(t *testing.T) (addr string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	testpb.RegisterTestServiceServer(g, callee{})
	healthpb.RegisterHealthServer(g, health.NewServer())
	go func() { _ = g.Serve(lis) }()
	t.Cleanup(g.Stop)
	return lis.Addr().String()
}

// TestProtocols comes to one edge by HTTP/3 and by gRPC.
func TestProtocols(t *testing.T) {
	addr := startCallee(t)
	s := newSecured(t, func(s *stack) {
		s.edge.TLS.HTTP3 = true
		before, after, _ := strings.Cut(tlsPolicy, "  - name: core\n")
		s.policy = before + grpcPolicy[1:] + "  - name: core\n" + after
		s.endpoints.Services["calls"] = map[string][]string{"baseline": {addr}}
	})
	for name, test := range map[string]func(*testing.T, *secured){"HTTP/3": testHTTP3, "gRPC": testGRPC} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			defer func() { s.t = s.root }()
			test(t, s)
		})
	}
}

// testGRPC calls a gRPC service through the edge, as a gRPC client does and as a browser
// does, encrypted and not.
func testGRPC(t *testing.T, s *secured) {
	for name, target := range map[string]struct {
		addr  string
		creds credentials.TransportCredentials
	}{
		"unencrypted": {s.edge.Listen, insecure.NewCredentials()},
		"by TLS":      {s.edge.TLS.Listen, credentials.NewTLS(&tls.Config{RootCAs: s.roots, ServerName: "chat.test"})},
	} {
		t.Run(name, func(t *testing.T) { testCalls(t, target.addr, target.creds) })
	}
	t.Run("gRPC-Web", func(t *testing.T) { testGRPCWeb(t, s) })
}

func testCalls(t *testing.T, addr string, creds credentials.TransportCredentials) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := testpb.NewTestServiceClient(conn)
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-env", "canary"), 20*time.Second)
	defer cancel()
	got, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: []byte("hello")}})
	if err != nil || string(got.GetPayload().GetBody()) != "hello" || got.GetUsername() != string(canary.ID()) {
		t.Errorf("unary: %v, %v; want group %s", got, err, canary.ID())
	}
	_, err = client.UnaryCall(ctx, &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.FailedPrecondition), Message: "not now"}})
	if st := status.Convert(err); st.Code() != codes.FailedPrecondition || st.Message() != "not now" {
		t.Errorf("status %v", err)
	}
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 { // each message is answered before the next is sent: nothing holds back
		want := fmt.Sprint("message ", i)
		if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: []byte(want)}}); err != nil {
			t.Fatal(err)
		}
		r, err := stream.Recv()
		if err != nil || string(r.GetPayload().GetBody()) != want {
			t.Fatalf("stream: %q, %v", r.GetPayload().GetBody(), err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("stream ended with %v", err)
	}
	short, end := context.WithTimeout(ctx, 300*time.Millisecond)
	defer end()
	open, err := client.FullDuplexCall(short)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open.Recv(); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a call with a deadline ended with %v", err)
	}
}

// testGRPCWeb speaks HTTP/1.1 and the framing of gRPC-Web by hand.
func testGRPCWeb(t *testing.T, s *secured) {
	const method = "/grpc.testing.TestService/UnaryCall"
	message, err := proto.Marshal(&testpb.SimpleRequest{Payload: &testpb.Payload{Body: []byte("from a browser")}})
	if err != nil {
		t.Fatal(err)
	}
	send := func(method, path, origin string, body []byte) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.edge.Listen+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc-web+proto")
		req.Header.Set("X-Grpc-Web", "1")
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", http.MethodPost)
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, got
	}
	resp, body := send(http.MethodPost, method, "https://app.test", webFrame(0, message))
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/grpc-web+proto" || resp.Header.Get("Access-Control-Allow-Origin") != "https://app.test" {
		t.Fatalf("status %d, headers %v", resp.StatusCode, resp.Header)
	}
	data, rest := readWebFrame(t, body, 0)
	var got testpb.SimpleResponse
	if err := proto.Unmarshal(data, &got); err != nil || string(got.GetPayload().GetBody()) != "from a browser" {
		t.Errorf("message %v, %v", &got, err)
	}
	if trailers, _ := readWebFrame(t, rest, 0x80); !strings.Contains(string(trailers), "grpc-status:0") {
		t.Errorf("trailers %q", trailers)
	}
	if resp, _ := send(http.MethodOptions, method, "https://app.test", nil); resp.Header.Get("Access-Control-Allow-Origin") != "https://app.test" {
		t.Errorf("preflight: status %d, headers %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := send(http.MethodOptions, method, "https://evil.test", nil); resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of another origin: headers %v", resp.Header)
	}
}

func webFrame(flags byte, message []byte) []byte {
	out := append([]byte{flags}, binary.BigEndian.AppendUint32(nil, uint32(len(message)))...)
	return append(out, message...)
}

func readWebFrame(t *testing.T, b []byte, flags byte) (frame, rest []byte) {
	t.Helper()
	if len(b) < 5 || b[0] != flags || uint32(len(b)-5) < binary.BigEndian.Uint32(b[1:]) {
		t.Fatalf("no frame %x in %q", flags, b)
	}
	n := binary.BigEndian.Uint32(b[1:])
	return b[5 : 5+n], b[5+n:]
}

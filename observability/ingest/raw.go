package ingest

import (
	"context"
	"fmt"
	"strings"

	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that rawCodec stands before
	"google.golang.org/grpc/mem"
)

// rawMessage is a message that is not decoded.
type rawMessage struct{ text string }

// rawCodec is gRPC's codec of protobuf, but for messages that are wanted as they came.
type rawCodec struct{ encoding.CodecV2 }

func newRawCodec() rawCodec { return rawCodec{encoding.GetCodecV2("proto")} }

// Unmarshal implements [encoding.CodecV2].
func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*rawMessage)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	var b strings.Builder
	b.Grow(data.Len())
	for _, part := range data {
		b.Write(part.ReadOnlyData())
	}
	m.text = b.String()
	return nil
}

// traceServiceDesc is the generated one with Export for raw messages.
func traceServiceDesc() *grpc.ServiceDesc {
	desc := collectortrace.TraceService_ServiceDesc
	desc.HandlerType = (*any)(nil)
	desc.Methods = []grpc.MethodDesc{{
		MethodName: "Export",
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			s, ok := srv.(traceService)
			if !ok {
				return nil, fmt.Errorf("trace service is a %T", srv)
			}
			var m rawMessage
			if err := decode(&m); err != nil {
				return nil, err
			}
			return s.Export(ctx, m.text)
		},
	}}
	return &desc
}

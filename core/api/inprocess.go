package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tracegate/tracegate/core/protocol"
)

// inprocess calls operations without a network between, through the same interceptor as
// gRPC does. It is what the gateway takes for a connection. (The gateway's own way to do
// without a network passes by interceptors, so auth and limits would have to be written
// twice.)
type inprocess struct {
	chain   grpc.UnaryServerInterceptor
	methods map[string]unary
}

type unary struct {
	impl any
	desc grpc.MethodDesc
}

// RegisterService implements grpc.ServiceRegistrar.
func (c *inprocess) RegisterService(desc *grpc.ServiceDesc, impl any) {
	for _, m := range desc.Methods {
		c.methods["/"+desc.ServiceName+"/"+m.MethodName] = unary{impl, m}
	}
}

// Invoke implements grpc.ClientConnInterface. An error of the operation comes back as it
// is, not as a status.
func (c *inprocess) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := c.methods[method]
	if !ok {
		return noSuchOperation()
	}
	out, err := m.desc.Handler(m.impl, ctx, func(in any) error {
		move(in.(proto.Message), args.(proto.Message)) // both are of the method's type: generated code calls and is called
		return nil
	}, c.chain)
	if err != nil {
		return err
	}
	move(reply.(proto.Message), out.(proto.Message))
	return nil
}

// move gives an empty message what another of its type has. Nobody uses that one
// afterwards, so lists and messages in it are not copied.
func move(to, from proto.Message) {
	dst, src := to.ProtoReflect(), from.ProtoReflect()
	src.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		dst.Set(f, v)
		return true
	})
	dst.SetUnknown(src.GetUnknown())
}

// NewStream implements grpc.ClientConnInterface: no stream has a path in REST.
func (c *inprocess) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, noSuchOperation()
}

func noSuchOperation() *protocol.Error {
	return protocol.NewError(protocol.CodeNotFound, "", "there is no such resource or method")
}

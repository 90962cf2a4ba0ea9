// Package wire is how core and its clients write the API's proto
// (core/protocol/tracegate/chat/v1): as JSON in REST, as protobuf in gRPC, and as either
// on a WebSocket. It is pure.
//
// The structs of core/protocol are the same messages for who works with them: plain
// values, which the hot path writes as JSON by encoding/json. A test holds them and the
// proto together, field by field and in both encodings, so that neither can change alone.
// (Working with the generated types everywhere lost: they cannot be copied or compared,
// and protojson takes several times as long for a message and writes seq as a string.)
package wire

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Unknown is the number of a field of m, or of a message in it, that the proto has not;
// zero where there is none. Who sends one means something that would be passed over.
func Unknown(m proto.Message) (field int32) {
	return unknown(m.ProtoReflect())
}

func unknown(m protoreflect.Message) (field int32) {
	if b := m.GetUnknown(); len(b) > 0 {
		n, _, _ := protowire.ConsumeTag(b)
		return int32(n)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				if field = unknown(v.List().Get(i).Message()); field != 0 {
					return false
				}
			}
		default:
			field = unknown(v.Message())
		}
		return field == 0
	})
	return field
}

package keda

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// serviceName is what KEDA calls.
const serviceName = "externalscaler.ExternalScaler"

// messages of the protocol: a name, and its fields as "name number type"; a type in
// brackets is repeated. A map is a repeated message with key and value.
var messages = [][]string{
	{"ScaledObjectRef", "name 1 string", "namespace 2 string", "scalerMetadata 3 [ScaledObjectRef.ScalerMetadataEntry]"},
	{"IsActiveResponse", "result 1 bool"},
	{"GetMetricSpecResponse", "metricSpecs 1 [MetricSpec]"},
	{"MetricSpec", "metricName 1 string", "targetSize 2 int64", "targetSizeFloat 3 double"},
	{"GetMetricsRequest", "scaledObjectRef 1 ScaledObjectRef", "metricName 2 string"},
	{"GetMetricsResponse", "metricValues 1 [MetricValue]"},
	{"MetricValue", "metricName 1 string", "metricValue 2 int64", "metricValueFloat 3 double"},
}

// protocol are the descriptors of all messages.
type protocol struct{ file protoreflect.FileDescriptor }

func newProtocol() (protocol, error) {
	file := &descriptorpb.FileDescriptorProto{Name: proto.String("externalscaler.proto"), Package: proto.String("externalscaler"), Syntax: proto.String("proto3")}
	for _, m := range messages {
		d := &descriptorpb.DescriptorProto{Name: &m[0]}
		for _, text := range m[1:] {
			field, err := fieldOf(text)
			if err != nil {
				return protocol{}, err
			}
			d.Field = append(d.Field, field)
		}
		file.MessageType = append(file.MessageType, d)
	}
	text := descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()
	one := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	file.MessageType[0].NestedType = []*descriptorpb.DescriptorProto{{
		Name: proto.String("ScalerMetadataEntry"), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
		Field: []*descriptorpb.FieldDescriptorProto{
			{Name: proto.String("key"), Number: proto.Int32(1), Type: text, Label: one}, {Name: proto.String("value"), Number: proto.Int32(2), Type: text, Label: one},
		},
	}}
	fd, err := protodesc.NewFile(file, nil)
	if err != nil {
		return protocol{}, fmt.Errorf("describe protocol: %w", err)
	}
	return protocol{fd}, nil
}

func fieldOf(text string) (*descriptorpb.FieldDescriptorProto, error) {
	var name, kind string
	var number int32
	if _, err := fmt.Sscan(text, &name, &number, &kind); err != nil {
		return nil, fmt.Errorf("describe field %q: %w", text, err)
	}
	f := &descriptorpb.FieldDescriptorProto{Name: &name, JsonName: &name, Number: &number, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	if inner, ok := strings.CutPrefix(kind, "["); ok {
		kind = strings.TrimSuffix(inner, "]")
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	}
	if t, ok := descriptorpb.FieldDescriptorProto_Type_value["TYPE_"+strings.ToUpper(kind)]; ok {
		f.Type = descriptorpb.FieldDescriptorProto_Type(t).Enum()
		return f, nil
	}
	f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String(".externalscaler."+kind)
	return f, nil
}

func (p protocol) message(name protoreflect.Name) *dynamicpb.Message {
	return dynamicpb.NewMessage(p.file.Messages().ByName(name))
}

// set makes a message of fields; a list of messages makes it repeated.
func (p protocol) set(name protoreflect.Name, fields map[protoreflect.Name]any) *dynamicpb.Message {
	m := p.message(name)
	for field, value := range fields {
		fd := m.Descriptor().Fields().ByName(field)
		if many, ok := value.([]*dynamicpb.Message); ok {
			list := m.Mutable(fd).List()
			for _, one := range many {
				list.Append(protoreflect.ValueOfMessage(one))
			}
			continue
		}
		m.Set(fd, protoreflect.ValueOf(value))
	}
	return m
}

func text(m protoreflect.Message, field protoreflect.Name) string {
	return m.Get(m.Descriptor().Fields().ByName(field)).String()
}

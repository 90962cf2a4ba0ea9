package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tracegate/tracegate/core/protocol"
)

// AppendJSON appends a message as JSON: fields by their names in the proto, in its order.
// What has presence (optional, a message) is left out where it is not set; all else is
// always there. Numbers are numbers, also those of 64 bits: none here passes 2^53, and
// scripts of browsers want to calculate with them. (protojson writes them as strings, so
// it could not keep the shapes that clients know.)
func AppendJSON(b []byte, m proto.Message) []byte { return appendMessage(b, m.ProtoReflect()) }

func appendMessage(b []byte, m protoreflect.Message) []byte {
	if t, ok := m.Interface().(*timestamppb.Timestamp); ok {
		return t.AsTime().AppendFormat(append(b, '"'), `2006-01-02T15:04:05.999999999Z07:00"`)
	}
	b = append(b, '{')
	fields := m.Descriptor().Fields()
	first := true
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.HasPresence() && !m.Has(f) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(append(b, '"'), f.Name()...), '"', ':')
		switch v := m.Get(f); {
		case f.IsMap():
			b = appendMap(b, f.MapValue(), v.Map())
		case f.IsList():
			b = appendList(b, f, v.List())
		default:
			b = appendValue(b, f, v)
		}
	}
	return append(b, '}')
}

func appendList(b []byte, f protoreflect.FieldDescriptor, list protoreflect.List) []byte {
	b = append(b, '[')
	for i := range list.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendValue(b, f, list.Get(i))
	}
	return append(b, ']')
}

// appendMap sorts by key, so that the same map is always the same text.
func appendMap(b []byte, f protoreflect.FieldDescriptor, m protoreflect.Map) []byte {
	keys := make([]string, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool { keys = append(keys, k.String()); return true })
	slices.Sort(keys)
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		b = appendValue(b, f, m.Get(protoreflect.ValueOfString(k).MapKey()))
	}
	return append(b, '}')
}

func appendValue(b []byte, f protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return appendMessage(b, v.Message())
	case protoreflect.StringKind:
		return appendString(b, v.String())
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool())
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return strconv.AppendUint(b, v.Uint(), 10)
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return strconv.AppendInt(b, v.Int(), 10)
	default: // TestEveryFieldHasJSON keeps others out of the proto
		return append(b, "null"...)
	}
}

func appendString(b []byte, s string) []byte {
	text, _ := json.Marshal(s) // a string always encodes
	return append(b, text...)
}

// MaxDepth is how many objects and lists a client's JSON may have in each other. Nothing in
// the API needs more than three.
const MaxDepth = 16

// TooDeep says whether JSON passes MaxDepth before its first mistake, where its decoder
// stops anyway. Decoders themselves go down thousands of levels.
func TooDeep(b []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
			if c == '\\' {
				i++
			}
		case c == '{', c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return false
}

// ReadJSON reads one JSON object into a message strictly: right types, valid UTF-8, no
// unknown field, nothing after it, no more than MaxDepth levels. Its error names the field.
func ReadJSON(b []byte, m proto.Message) *protocol.Error {
	if !utf8.Valid(b) { // the decoder would replace what is not
		return invalid("body", "body is not valid UTF-8")
	}
	if TooDeep(b) {
		return invalid("body", fmt.Sprintf("body has more than %d objects and lists in each other", MaxDepth))
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return invalid("body", "body must be a JSON object")
		}
		return invalid("body", "body is not JSON: "+err.Error())
	}
	if fields == nil {
		return invalid("body", "body must be a JSON object")
	}
	known := m.ProtoReflect().Descriptor().Fields()
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		f := known.ByName(protoreflect.Name(name))
		switch {
		case name == "":
			return invalid("body", "body has a field without a name")
		case f == nil:
			return invalid(name, "there is no field "+name)
		}
		// One by one, because protojson does not say in which field it stumbled.
		one := m.ProtoReflect().New().Interface()
		object := slices.Concat([]byte(`{"`), []byte(name), []byte(`":`), fields[name], []byte("}"))
		if err := protojson.Unmarshal(object, one); err != nil {
			return invalid(name, fmt.Sprintf("%s must be %s", name, Kind(f)))
		}
		proto.Merge(m, one)
	}
	return nil
}

// Kind says in words what a field takes in JSON.
func Kind(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "an object"
	case f.IsList():
		return "a list"
	}
	switch f.Kind() {
	case protoreflect.StringKind:
		return "a string"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.MessageKind:
		if f.Message().FullName() == "google.protobuf.Timestamp" {
			return "a time such as " + time.Unix(0, 0).UTC().Format(time.RFC3339)
		}
		return "an object"
	default:
		return "a whole number"
	}
}

func invalid(field, message string) *protocol.Error {
	return protocol.NewError(protocol.CodeInvalidArgument, field, message)
}

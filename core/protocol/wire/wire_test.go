package wire_test

import (
	"encoding/binary"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
)

// full gives every field of a value of Go a value of its own.
func full(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		full(v.Elem(), n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(*n), 123_456_000).UTC()))
			return
		}
		for i := range v.NumField() {
			full(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		full(v.Index(0), n)
		full(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]int64{"a": int64(*n), "b": 1}))
	case reflect.String:
		v.SetString("text \" < \u00fc " + strings.Repeat("x", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint32:
		v.SetUint(uint64(*n))
	default:
		v.SetInt(int64(*n) << 33 >> 20)
	}
}

// each are values of a struct of pointers, each with another pointer set to a full value,
// and, where zero, to an empty one.
func each[T any](zero bool) []T {
	var out []T
	n := 0
	for i := range reflect.TypeFor[T]().NumField() {
		var one T
		v := reflect.ValueOf(&one).Elem()
		v.Field(0).SetUint(7)
		f := v.Field(i)
		switch {
		case f.Kind() != reflect.Pointer:
			continue
		case zero:
			f.Set(reflect.New(f.Type().Elem()))
		default:
			full(f, &n)
		}
		out = append(out, one)
	}
	return out
}

// decoded is JSON as values, where what is left out and what is empty count the same.
func decoded(t *testing.T, b []byte) any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return pruned(v)
}

func pruned(v map[string]any) map[string]any {
	for k, x := range v {
		switch x := x.(type) {
		case nil:
			delete(v, k)
		case string:
			if x == "" {
				delete(v, k)
			}
		case map[string]any:
			if pruned(x); len(x) == 0 && k == "positions" { // an empty message is no message left out
				delete(v, k)
			}
		case []any:
			if len(x) == 0 {
				delete(v, k)
			}
		case float64:
			if x == 0 {
				delete(v, k)
			}
		}
	}
	return v
}

// TestFramesAreTheProto: what core writes as JSON is what the proto says, and protobuf
// says the same.
func TestFramesAreTheProto(t *testing.T) {
	frames := append(each[protocol.Frame](false), each[protocol.Frame](true)...)
	if len(frames) < 18 {
		t.Fatalf("%d frames", len(frames))
	}
	for _, f := range frames {
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		m := wire.Frame(f)
		if diff := cmp.Diff(decoded(t, b), decoded(t, wire.AppendJSON(nil, m))); diff != "" {
			t.Errorf("the struct and the proto differ in JSON: %s", diff)
		}
		got, rest, err := wire.NextFrame(append(wire.AppendFrame(nil, f), "rest"...))
		if diff := cmp.Diff(f, got); diff != "" || err != nil || string(rest) != "rest" {
			t.Errorf("by protobuf: %v, rest %q %s", err, rest, diff)
		}
		sub := &chatv1.SubscribeResponse{}
		if err := proto.Unmarshal(append([]byte{wire.SubscribeTag}, wire.AppendFrame(nil, f)...), sub); err != nil || !proto.Equal(sub.GetFrame(), m) {
			t.Errorf("a subscription's frame: %v, %v", err, sub)
		}
	}
	if n := (&chatv1.Frame{}).ProtoReflect().Descriptor().Fields().Len(); n != reflect.TypeFor[protocol.Frame]().NumField() {
		t.Errorf("the proto's frame has %d fields", n)
	}
}

func TestCommandsAreTheProto(t *testing.T) {
	commands := append(each[protocol.Command](false), each[protocol.Command](true)...)
	for _, c := range commands {
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		bin := wire.AppendCommand(nil, c)
		m := &chatv1.Command{}
		_, head := binary.Uvarint(bin)
		if err := proto.Unmarshal(bin[head:], m); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(decoded(t, b), decoded(t, wire.AppendJSON(nil, m))); diff != "" {
			t.Errorf("the struct and the proto differ in JSON: %s", diff)
		}
		got, rest, err := wire.NextCommand(append(bin, 1))
		if diff := cmp.Diff(c, got); diff != "" || err != nil || len(rest) != 1 {
			t.Errorf("by protobuf: %v %s", err, diff)
		}
	}
	if n := (&chatv1.Command{}).ProtoReflect().Descriptor().Fields().Len(); n != reflect.TypeFor[protocol.Command]().NumField() {
		t.Errorf("the proto's command has %d fields", n)
	}
}

func TestBadProtobuf(t *testing.T) {
	ping := wire.AppendCommand(nil, protocol.Command{ID: 1, Ping: &protocol.Ping{}})
	for name, c := range map[string]struct {
		bytes []byte
		want  string
	}{
		"nothing":               {nil, "shorter"},
		"a length and no more":  {[]byte{5}, "shorter"},
		"a length that is none": {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "shorter"},
		"a length of 2^63":      {binary.AppendUvarint(nil, 1<<63), "shorter"},
		"cut":                   {ping[:len(ping)-1], "shorter"},
		"no protobuf":           {[]byte{1, 0xff}, "not a command"},
		"not UTF-8":             {lengthy(protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), []byte{0x1a, 1, 0xff})), "not a command"},
		"a field of the future": {lengthy(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)), "no field 99"},
		"one within":            {lengthy([]byte{4<<3 | 2, 2, 14 << 3, 1}), "no field 14"},
	} {
		if _, _, err := wire.NextCommand(c.bytes); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func lengthy(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

func TestReadJSON(t *testing.T) {
	for name, c := range map[string]struct {
		text, field string
	}{
		"nothing":             {"", "body"},
		"no JSON":             {"name", "body"},
		"null":                {"null", "body"},
		"a list":              {"[]", "body"},
		"a string":            {`"x"`, "body"},
		"two values":          {"{}{}", "body"},
		"more behind":         {"{} x", "body"},
		"not UTF-8":           {"{\"text\":\"\xff\"}", "body"},
		"half a surrogate":    {`{"text":"\ud800"}`, "text"},
		"an unknown field":    {`{"nick":"x"}`, "nick"},
		"the name in Go":      {`{"clientId":"x"}`, "clientId"},
		"a number for text":   {`{"text":1}`, "text"},
		"text for a number":   {`{"reply_to":"x"}`, "reply_to"},
		"half a number":       {`{"reply_to":1.5}`, "reply_to"},
		"a number too large":  {`{"reply_to":9223372036854775808}`, "reply_to"},
		"an object for text":  {`{"text":{}}`, "text"},
		"several wrong":       {`{"text":1,"client_id":2}`, "client_id"},
		"nested without end":  {strings.Repeat(`{"text":`, 5000), "body"},
		"nested where a text": {`{"text":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`, "text"},
		"nested too deep":     {`{"text":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`, "body"},
	} {
		if err := wire.ReadJSON([]byte(c.text), &chatv1.SendMessageRequest{}); err == nil || err.Field != c.field || err.Code != protocol.CodeInvalidArgument || err.Message == "" {
			t.Errorf("%s: %+v", name, err)
		}
	}
	got := &chatv1.SendMessageRequest{}
	if err := wire.ReadJSON([]byte(` {"text":"x","reply_to":7,"client_id":null} `), got); err != nil || got.GetText() != "x" || got.GetReplyTo() != 7 {
		t.Errorf("%v %v", err, got)
	}
	if err := wire.ReadJSON([]byte(`{"members":["a",1]}`), &chatv1.AddMembersRequest{}); err == nil || err.Message != "members must be a list" {
		t.Errorf("got %v", err)
	}
}

func TestTooDeep(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"as deep as may be":        {strings.Repeat(`{"a":[`, 8) + strings.Repeat("]}", 8), false},
		"one more":                 {strings.Repeat(`{"a":[`, 8) + "{" + strings.Repeat("]}", 8), true},
		"many side by side":        {"[" + strings.Repeat("[{}],", 100) + "{}]", false},
		"several values":           {strings.Repeat(`{"a":{}}`+"\n", 100), false},
		"brackets of a text":       {`{"a":"` + strings.Repeat("[{", 100) + `"}`, false},
		"behind a quote of a text": {`{"a":"\"` + strings.Repeat("[{", 100) + `"}`, false},
		"behind a text":            {`{"a":"\\","b":` + strings.Repeat("[", 16), true},
		"deep after a deep one":    {strings.Repeat("[", 16) + strings.Repeat("]", 16) + strings.Repeat("[", 17), true},
		"a text that does not end": {`{"a":"\`, false},
		"closed more than once":    {strings.Repeat("]", 100), false},
		"nothing":                  {"", false},
	} {
		if got := wire.TooDeep([]byte(c.text)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	text := []byte(`{"id":1,"send":{"text":"[[["}}`)
	if n := testing.AllocsPerRun(100, func() { wire.TooDeep(text) }); n != 0 {
		t.Errorf("allocates %v times", n)
	}
}

// TestJSON has what the frames have not: times, empty lists, what is left out.
func TestJSON(t *testing.T) {
	for want, m := range map[string]proto.Message{
		`{"id":"","token":"t","expires_at":"2026-01-02T03:04:05.6Z"}`: &chatv1.Session{
			Token: "t", ExpiresAt: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)),
		},
		`{"names":[]}`:                       &chatv1.ListBlocksResponse{},
		`{"names":["a","b"],"next":"n"}`:     &chatv1.ListBlocksResponse{Names: []string{"a", "b"}, Next: proto.String("n")},
		`{"id":"","name":"","tenant":""}`:    &chatv1.User{},
		`{"epoch":"","positions":{"a":1}}`:   &chatv1.Resume{Positions: map[string]int64{"a": 1}},
		`{}`:                                 &chatv1.LogOutResponse{},
		`{"messages":[],"epoch":"\u003c"}`:   &chatv1.ListMessagesResponse{Epoch: "<"},
		`{"conversation":"c","user":"ann"}`:  &chatv1.Typing{Conversation: "c", User: proto.String("ann")},
		`{"recovered":true,"replayed":1000}`: &chatv1.Resumed{Recovered: true, Replayed: 1000},
	} {
		if got := string(wire.AppendJSON(nil, m)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestEveryFieldHasJSON: AppendJSON knows the kinds of all fields of the API.
func TestEveryFieldHasJSON(t *testing.T) {
	fields := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("tracegate.chat.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			for k := range f.Messages().Get(i).Fields().Len() {
				fields++
				field := f.Messages().Get(i).Fields().Get(k)
				switch field.Kind() {
				case protoreflect.StringKind, protoreflect.BoolKind, protoreflect.MessageKind,
					protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Uint32Kind, protoreflect.Uint64Kind:
				default:
					t.Errorf("%s: AppendJSON does not know %s", field.FullName(), field.Kind())
				}
				if field.IsMap() && field.MapKey().Kind() != protoreflect.StringKind {
					t.Errorf("%s: AppendJSON knows maps by strings only", field.FullName())
				}
			}
		}
		return true
	})
	if fields < 100 {
		t.Errorf("looked at %d fields", fields)
	}
}

func FuzzNextCommand(f *testing.F) {
	for _, c := range each[protocol.Command](false) {
		f.Add(wire.AppendCommand(nil, c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, rest, err := wire.NextCommand(b)
		if err != nil {
			return
		}
		if len(rest) >= len(b) {
			t.Fatal("nothing was read")
		}
		again, _, err := wire.NextCommand(wire.AppendCommand(nil, c))
		if diff := cmp.Diff(c, again); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func FuzzReadJSON(f *testing.F) {
	f.Add([]byte(`{"conversation":"c","client_id":"1","text":"x","reply_to":7}`))
	f.Add([]byte(`{"with":"ann","members":["a"],"muted":true,"positions":{"a":1}}`))
	f.Add([]byte(`{"":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []proto.Message{&chatv1.SendMessageRequest{}, &chatv1.CreateConversationRequest{}, &chatv1.MuteConversationRequest{}, &chatv1.Resume{}, &chatv1.Message{}} {
			if err := wire.ReadJSON(b, m); err != nil {
				if err.Field == "" || err.Message == "" {
					t.Errorf("error without a field or a message: %+v", err)
				}
				continue
			}
			again := m.ProtoReflect().New().Interface()
			if err := wire.ReadJSON(wire.AppendJSON(nil, m), again); err != nil || !proto.Equal(m, again) {
				t.Errorf("%v: %v became %v", err, m, again)
			}
		}
	})
}

// Command generate finishes what protoc-gen-openapiv2 has made of the API's proto, where
// the server does more than that can know: 64-bit numbers are numbers, an operation has
// the status and the need for a token that its options say, all fail with the same Error,
// and files (files.json) have paths too. `go tool task generate` runs it, in core/protocol.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
)

const (
	made     = "../api/openapi/chat.swagger.json"
	finished = "../api/openapi/openapi.json"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "generate openapi:", err)
		os.Exit(1)
	}
}

func run() error {
	b, err := os.ReadFile(made)
	if err != nil {
		return err
	}
	if b, err = finish(b); err != nil {
		return err
	}
	if err := os.WriteFile(finished, b, 0o644); err != nil {
		return err
	}
	return os.Remove(made)
}

type object = map[string]any

// finish is the document that is served.
func finish(swagger []byte) ([]byte, error) {
	var doc object
	if err := json.Unmarshal(swagger, &doc); err != nil {
		return nil, fmt.Errorf("read what the plugin has made: %w", err)
	}
	numbers(doc)
	doc["info"] = object{
		"title": "Tracegate chat", "version": "v1", "license": object{"name": "Apache-2.0"},
		"description": "What a client can ask core for, by REST. The same operations, but for files, are served by gRPC (package tracegate.chat.v1, with reflection), " +
			"and what happens is pushed on a WebSocket (/v1/ws) or by the gRPC stream Subscribe.",
	}
	doc["consumes"], doc["produces"] = []string{"application/json"}, []string{"application/json"}
	doc["securityDefinitions"] = object{"token": object{
		"type": "apiKey", "in": "header", "name": "Authorization", "description": "\"Bearer \" and the token of LogIn. A browser may send the cookie instead.",
	}}
	doc["security"] = []object{{"token": []string{}}}
	paths, _ := doc["paths"].(object)
	for _, o := range operations() {
		item, _ := paths[o.path].(object)
		described, ok := item[o.method].(object)
		if !ok {
			return nil, fmt.Errorf("%s %s is in the proto and not in what the plugin has made", o.method, o.path)
		}
		o.finish(described)
	}
	if err := addFiles(doc); err != nil {
		return nil, fmt.Errorf("add files: %w", err)
	}
	definitions, _ := doc["definitions"].(object)
	definitions["Error"] = errorSchema()
	out, err := json.MarshalIndent(doc, "", " ")
	return append(out, '\n'), err
}

// numbers makes 64-bit integers numbers, as package wire writes them.
func numbers(v any) {
	switch v := v.(type) {
	case object:
		if f := v["format"]; v["type"] == "string" && (f == "int64" || f == "uint64") {
			v["type"] = "integer"
		}
		for _, inner := range v {
			numbers(inner)
		}
	case []any:
		for _, inner := range v {
			numbers(inner)
		}
	}
}

// operation is one path and method of the proto.
type operation struct {
	method, path string
	public       bool
	status       int
	empty        bool
}

func operations() []operation {
	var out []operation
	protoregistry.GlobalFiles.RangeFilesByPackage("tracegate.chat.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for k := range methods.Len() {
				if o, ok := operationOf(methods.Get(k)); ok {
					out = append(out, o)
				}
			}
		}
		return true
	})
	return out
}

func operationOf(m protoreflect.MethodDescriptor) (o operation, ok bool) {
	rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	said, _ := proto.GetExtension(m.Options(), chatv1.E_Call).(*chatv1.Call)
	o = operation{public: said.GetPublic(), status: int(said.GetStatus()), empty: m.Output().Fields().Len() == 0}
	for _, p := range []struct{ method, path string }{
		{"get", rule.GetGet()}, {"put", rule.GetPut()}, {"post", rule.GetPost()}, {"delete", rule.GetDelete()}, {"patch", rule.GetPatch()},
	} {
		if p.path != "" {
			o.method, o.path = p.method, p.path
		}
	}
	switch {
	case o.status != 0:
	case o.empty:
		o.status = http.StatusNoContent
	default:
		o.status = http.StatusOK
	}
	return o, o.path != ""
}

func (o operation) finish(described object) {
	responses, _ := described["responses"].(object)
	success, _ := responses["200"].(object)
	delete(responses, "200")
	success["description"] = http.StatusText(o.status)
	if o.empty {
		delete(success, "schema")
	}
	responses[strconv.Itoa(o.status)] = success
	responses["default"] = object{"description": "What went wrong.", "schema": errorRef()}
	if o.public {
		described["security"] = []object{}
	}
}

func errorRef() object { return object{"$ref": "#/definitions/Error"} }

// errorSchema says which status each code has, too.
func errorSchema() object {
	var codes, statuses []string
	for _, c := range protocol.Codes() {
		codes = append(codes, string(c))
		statuses = append(statuses, fmt.Sprintf("%s %d", c, c.Status()))
	}
	return object{
		"type": "object", "required": []string{"code", "message", "temporary"},
		"properties": object{
			"code":      object{"type": "string", "enum": codes, "description": "Status by code: " + strings.Join(statuses, ", ") + "."},
			"message":   object{"type": "string", "description": "For people."},
			"field":     object{"type": "string", "description": "What of the request is wrong, where it is one thing."},
			"temporary": object{"type": "boolean", "description": "The same call may succeed later."},
		},
	}
}

package openapi_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/tracegate/tracegate/core/api/openapi"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/mesh/webpage/browsertest"
)

type document struct {
	Paths map[string]map[string]struct {
		Summary   string
		Responses map[string]json.RawMessage
		Security  []any
	}
	Definitions map[string]json.RawMessage
}

func read(t *testing.T) document {
	t.Helper()
	var doc document
	if err := json.Unmarshal(openapi.Document, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestDocumentHasEveryOperation of the proto, with its status, and no type that the
// server does not write.
func TestDocumentHasEveryOperation(t *testing.T) {
	doc := read(t)
	operations := 0
	protoregistry.GlobalFiles.RangeFilesByPackage(chatv1.File_tracegate_chat_v1_account_proto.Package(), func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for k := range f.Services().Get(i).Methods().Len() {
				m := f.Services().Get(i).Methods().Get(k)
				rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
				for method, path := range map[string]string{
					"get": rule.GetGet(), "put": rule.GetPut(), "post": rule.GetPost(), "delete": rule.GetDelete(), "patch": rule.GetPatch(),
				} {
					if path == "" {
						continue
					}
					operations++
					o, ok := doc.Paths[path][method]
					if !ok || o.Summary == "" || len(o.Responses) != 2 || o.Responses["default"] == nil {
						t.Errorf("%s %s: %+v", method, path, o)
					}
				}
			}
		}
		return true
	})
	if operations < 25 {
		t.Errorf("%d operations", operations)
	}
	if _, ok := doc.Paths["/v1/conversations/{conversation}/messages"]["post"].Responses["202"]; !ok {
		t.Error("a message is not answered with 202")
	}
	if login := doc.Paths["/v1/sessions"]["post"]; login.Security == nil || len(login.Security) != 0 {
		t.Errorf("a log-in needs a token: %v", login.Security)
	}
	if text := string(openapi.Document); strings.Contains(strings.ReplaceAll(text, " ", ""), `"format":"int64","type":"string"`) || strings.Contains(text, "rpcStatus") {
		t.Error("64-bit numbers are strings, or errors those of the gateway")
	}
}

func TestHandler(t *testing.T) {
	s := httptest.NewServer(openapi.Handler())
	defer s.Close()
	for path, kind := range map[string]string{"/openapi.json": "application/json", "/docs": "text/html", "/docs/": "text/html"} {
		resp, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) || len(b) == 0 || resp.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
}

// TestPage draws every operation under the policy of all pages, and finds them.
func TestPage(t *testing.T) {
	s := httptest.NewServer(openapi.Handler())
	defer s.Close()
	b := browsertest.Start(t)
	for _, size := range []browsertest.Size{browsertest.Desktop(), browsertest.Phone()} {
		t.Run(size.Name, func(t *testing.T) {
			tab := b.Tab(t, size)
			tab.Open(s.URL + "/docs/")
			tab.Until(`!document.getElementById("errors").hidden`)
			tab.Until(`document.querySelectorAll("article").length >= 25`)
			tab.Until(`document.querySelector("#SendMessage h4 + table").textContent.includes("conversation")`)
			tab.Until(`document.querySelector("#UploadFile").textContent.includes("-F file=@FILE") && document.querySelector("#UploadFile").textContent.includes("413")`)
			tab.Until(`document.documentElement.scrollWidth <= document.documentElement.clientWidth`)
			for theme, dark := range map[string]bool{"light": false, "dark": true} {
				tab.Dark(dark)
				tab.Screenshot("docs-" + size.Name + "-" + theme)
				tab.Accessible("docs " + size.Name + " " + theme)
			}
			tab.Type("#find", "typing")
			tab.Until(`[...document.querySelectorAll("#toc li")].filter((li) => !li.hidden).length === 1`)
		})
	}
}

package stockgo_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/wasm/stockgo"
)

const sdk = "github.com/tetratelabs/proxy-wasm-go-sdk"

// TestLayout holds the bridge to the SDK's source: the variable that is linked to,
// and the interface whose values it takes, method by method. Where this fails after
// an update of the SDK, host.go follows, and then SDKVersion.
func TestLayout(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}} {{.Dir}}", sdk).Output()
	if err != nil {
		t.Fatal(err)
	}
	version, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if version != stockgo.SDKVersion {
		t.Errorf("go.mod has the SDK's %s, host.go is written for %s", version, stockgo.SDKVersion)
	}
	internal := parse(t, filepath.Join(dir, "proxywasm", "internal"), "abi_hostcalls_mock.go", "abi_enums.go")
	ours := parse(t, ".", "host.go")

	if typ := internal.vars["currentHost"]; typ != "ProxyWasmHost" {
		t.Errorf("the SDK's currentHost is a %q", typ)
	}
	want, got := internal.methods(t, "ProxyWasmHost"), ours.methods(t, "host")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("host differs from the SDK's interface (-sdk +ours):\n%s", diff)
	}
	if len(got) < 20 {
		t.Errorf("only %d methods compared", len(got))
	}
	// Each is kept from the linker.
	for name := range got {
		if !strings.Contains(ours.text, "host."+name+",") && !strings.Contains(ours.text, "host."+name+"\n") {
			t.Errorf("install does not keep %s alive", name)
		}
	}
}

type source struct {
	vars  map[string]string   // package variables by name: their types
	types map[string]ast.Expr // types by name: their definitions
	text  string
}

func parse(t *testing.T, dir string, files ...string) source {
	t.Helper()
	s := source{vars: map[string]string{}, types: map[string]ast.Expr{}}
	for _, name := range files {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if err := printer.Fprint(&text, fset, f); err != nil {
			t.Fatal(err)
		}
		s.text += text.String()
		for _, d := range f.Decls {
			d, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					s.types[spec.Name.Name] = spec.Type
				case *ast.ValueSpec:
					if typ, ok := spec.Type.(*ast.Ident); ok {
						s.vars[spec.Names[0].Name] = typ.Name
					}
				}
			}
		}
	}
	return s
}

// methods are an interface's methods by name, as their types with named types
// spelled out and without the names of parameters.
func (s source) methods(t *testing.T, name string) map[string]string {
	t.Helper()
	iface, ok := s.types[name].(*ast.InterfaceType)
	if !ok {
		t.Fatalf("there is no interface %s", name)
	}
	out := map[string]string{}
	for _, m := range iface.Methods.List {
		f, ok := m.Type.(*ast.FuncType)
		if !ok {
			t.Fatalf("%s embeds something", name)
		}
		out[m.Names[0].Name] = "func(" + s.fields(f.Params) + ") " + s.fields(f.Results)
	}
	return out
}

func (s source) fields(l *ast.FieldList) string {
	if l == nil {
		return ""
	}
	var types []string
	for _, f := range l.List {
		for range max(1, len(f.Names)) {
			types = append(types, s.spell(f.Type))
		}
	}
	return strings.Join(types, ", ")
}

func (s source) spell(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return "*" + s.spell(e.X)
	case *ast.Ident:
		if def, ok := s.types[e.Name]; ok {
			return s.spell(def)
		}
		return e.Name
	default:
		return fmt.Sprintf("%T", e)
	}
}

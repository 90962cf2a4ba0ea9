package kubernetes

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
)

// otherwise are keys of a Route that a rule has by another name.
var otherwise = map[string]string{"retries.retryOn": "retries.on"}

// leaves are what is no struct of our own.
var leaves = []reflect.Type{
	reflect.TypeFor[time.Time](), reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.Duration](), reflect.TypeFor[apiresource.Quantity](),
}

// keys are the paths of all keys of a type: "canary.pools.percent".
func keys(t reflect.Type, tag, at string, out map[string]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || slices.Contains(leaves, t) {
		out[at] = true
		return
	}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get(tag), ","); name != "-" {
			keys(t.Field(i).Type, tag, strings.TrimPrefix(at+"."+name, "."), out)
		}
	}
}

// TestRoutesSayWhatRulesSay fails where a rule gets a key that a Route has not.
func TestRoutesSayWhatRulesSay(t *testing.T) {
	t.Parallel()
	rule, route := map[string]bool{}, map[string]bool{}
	keys(reflect.TypeFor[policy.Rule](), "yaml", "", rule)
	keys(reflect.TypeFor[v1alpha1.RouteSpec](), "json", "", route)
	delete(rule, "name") // of the resource
	for mine, theirs := range otherwise {
		if route[mine] {
			delete(route, mine)
			route[theirs] = true
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(rule)), slices.Sorted(maps.Keys(route))); diff != "" {
		t.Errorf("(-rule +Route):\n%s", diff)
	}
}

var place = regexp.MustCompile(`\[[0-9]+\]|(\.(set|add))\..*`)

// TestRoutesMeanWhatRulesMean: each value of a Route is in the policy that it is laid over.
func TestRoutesMeanWhatRulesMean(t *testing.T) {
	t.Parallel()
	missing := map[string]bool{}
	keys(reflect.TypeFor[v1alpha1.RouteSpec](), "json", "", missing)
	raw, err := os.ReadFile("testdata/routes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range strings.Split(string(raw), "---\n") {
		r := &v1alpha1.Route{}
		if err := yaml.UnmarshalStrict([]byte(text), r); err != nil {
			t.Fatal(err)
		}
		base := string(policy.Default) + "\nlimits: [{name: few, requests: 1}]\n"
		p, _, refused, err := overlay(policy.Parse, []byte(base), []resource{route(r)})
		if err != nil || len(refused) > 0 {
			t.Fatalf("%s: %v %v", r.Name, err, refused)
		}
		rule := p.Services[1].Rules[0]
		want, got := map[string]string{}, map[string]string{}
		values(reflect.ValueOf(r.Spec), "json", "", want)
		values(reflect.ValueOf(rule), "yaml", "", got)
		for at, v := range want {
			delete(missing, place.ReplaceAllString(at, "$1"))
			for mine, theirs := range otherwise {
				at = strings.Replace(at, mine, theirs, 1)
			}
			if got[at] != v {
				t.Errorf("%s is %q in the policy, %q in the Route", at, got[at], v)
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("no example of %v", slices.Sorted(maps.Keys(missing)))
	}
}

// values are those of all keys that are set: "canary.pools[0].percent".
func values(v reflect.Value, tag, at string, out map[string]string) {
	if v.IsZero() {
		return
	}
	switch x := v.Interface().(type) {
	case metav1.Time:
		out[at] = x.UTC().String()
		return
	case time.Time:
		out[at] = x.UTC().String()
		return
	case metav1.Duration:
		out[at] = x.Duration.String()
		return
	case apiresource.Quantity:
		out[at] = fmt.Sprintf("%.4f", x.AsApproximateFloat64())
		return
	case float64:
		out[at] = fmt.Sprintf("%.4f", x)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		values(v.Elem(), tag, at, out)
	case reflect.Slice:
		for i := range v.Len() {
			values(v.Index(i), tag, fmt.Sprintf("%s[%d]", at, i), out)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			values(v.MapIndex(k), tag, at+"."+k.String(), out)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get(tag), ","); name != "-" {
				values(v.Field(i), tag, strings.TrimPrefix(at+"."+name, "."), out)
			}
		}
	default:
		out[at] = fmt.Sprint(v.Interface())
	}
}

package kubetest

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCalls(t *testing.T) {
	var c Calls
	failed := errors.New("nobody is there")
	web := c.Wrap(roundTrip(func(*http.Request) (*http.Response, error) { return nil, failed }))
	ask := func(method, path string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "https://here"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := web.RoundTrip(r); !errors.Is(err, failed) {
			t.Error(err)
		}
	}
	ask(http.MethodGet, "/apis")
	ask(http.MethodGet, "/apis/apps/v1")
	ask(http.MethodGet, "/api/v1/pods?watch=1")
	ask(http.MethodGet, "/api/v1/namespaces/shop")
	ask(http.MethodGet, "/api/v1/namespaces/shop/services?limit=1")
	before := c.Counted()
	ask(http.MethodPatch, "/apis/apps/v1/namespaces/shop/deployments/a/scale")
	ask(http.MethodPatch, "/apis/apps/v1/namespaces/shop/deployments/b/scale")
	ask(http.MethodPut, "/apis/coordination.k8s.io/v1/namespaces/tracegate/leases/o")
	want := map[string]int{"get": 2, "watch pods": 1, "get namespaces": 1, "list services": 1}
	if diff := cmp.Diff(want, words(before)); diff != "" {
		t.Error(diff)
	}
	now := c.Counted()
	want = map[string]int{"patch deployments/scale.apps": 2, "update leases.coordination.k8s.io": 1}
	if diff := cmp.Diff(want, words(Since(before, now))); diff != "" {
		t.Error(diff)
	}
	if n := Work(now); n != 6 {
		t.Errorf("%d calls, want 6", n)
	}
}

func words(counted map[Call]int) map[string]int {
	out := map[string]int{}
	for c, n := range counted {
		out[c.String()] = n
	}
	return out
}

package kubernetes

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func TestZonesOfSlices(t *testing.T) {
	t.Parallel()
	at := func(addr, zone string) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{addr}, Zone: &zone}
	}
	going := at("10.0.0.9", "a")
	yes := true
	going.Conditions.Terminating = &yes
	got := zones([]*discoveryv1.EndpointSlice{
		{Endpoints: []discoveryv1.Endpoint{at("10.0.0.2", "a"), at("10.0.0.1", "a"), at("10.0.1.1", "b"), {Addresses: []string{"10.0.2.1"}}}},
		{Endpoints: []discoveryv1.Endpoint{at("10.0.0.1", "a"), at("10.0.1.1", "a"), at("10.0.3.1", ""), going}}, // one address in two zones: an older slice
	})
	want := map[string][]string{"a": {"10.0.0.1", "10.0.0.2"}, "b": {"10.0.1.1"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

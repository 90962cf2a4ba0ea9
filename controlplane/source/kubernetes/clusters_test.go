package kubernetes

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
)

func TestMerge(t *testing.T) {
	set := func(addrs ...string) source.Update[policy.Endpoints] {
		return source.Update[policy.Endpoints]{Raw: []byte("x"), Value: policy.Endpoints{Services: map[string]map[string][]string{"core": {"baseline": addrs}}}}
	}
	lost := func(u source.Update[policy.Endpoints]) source.Update[policy.Endpoints] {
		return take(u, source.Update[policy.Endpoints]{Err: errors.New("away")})
	}
	c := Clusters{Others: []Other{{Name: "west"}, {Name: "east"}}}
	own, west, east := set("10.0.0.1:80"), set("10.1.0.2:80", "10.1.0.1:80"), set("10.2.0.1:80")
	for _, tt := range []struct {
		name         string
		last         []source.Update[policy.Endpoints]
		own, backup  []string
		lost         []string
		noneAnywhere bool
	}{
		{"all answer", []source.Update[policy.Endpoints]{own, west, east}, []string{"10.0.0.1:80"}, []string{"10.1.0.1:80", "10.1.0.2:80", "10.2.0.1:80"}, nil, false},
		{"alone", []source.Update[policy.Endpoints]{own, {}, {}}, []string{"10.0.0.1:80"}, nil, nil, false},
		{"own is cut off", []source.Update[policy.Endpoints]{lost(own), west, {}}, []string{"10.0.0.1:80"}, []string{"10.1.0.1:80", "10.1.0.2:80"}, []string{"this cluster: away"}, false},
		{"own was never heard of", []source.Update[policy.Endpoints]{lost(source.Update[policy.Endpoints]{}), {}, east}, nil, []string{"10.2.0.1:80"}, []string{"this cluster: away"}, false},
		{"another is cut off", []source.Update[policy.Endpoints]{own, lost(west), {}}, []string{"10.0.0.1:80"}, []string{"10.1.0.1:80", "10.1.0.2:80"}, []string{"cluster west: away"}, false},
		{"nobody has any", []source.Update[policy.Endpoints]{lost(source.Update[policy.Endpoints]{}), {}, {}}, nil, nil, nil, true},
	} {
		u := c.merge(tt.last)
		if (u.Err != nil) != tt.noneAnywhere {
			t.Errorf("%s: %v", tt.name, u.Err)
			continue
		}
		if u.Err != nil {
			continue
		}
		for what, diff := range map[string]string{
			"own": cmp.Diff(tt.own, u.Value.Services["core"]["baseline"]), "backup": cmp.Diff(tt.backup, u.Value.Backup["core"]["baseline"]), "lost": cmp.Diff(tt.lost, u.Lost),
		} {
			if diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", tt.name, what, diff)
			}
		}
		if again, err := policy.ParseEndpoints(u.Raw); err != nil || !cmp.Equal(again, u.Value, cmpopts.EquateEmpty()) {
			t.Errorf("%s: the document says something else: %v %v", tt.name, again, err)
		}
	}
}

func TestMergeKeepsZones(t *testing.T) {
	set := func(zone, addr string) source.Update[policy.Endpoints] {
		return source.Update[policy.Endpoints]{Raw: []byte("x"), Value: policy.Endpoints{
			Services: map[string]map[string][]string{"core": {"baseline": {addr + ":80"}}}, Zones: map[string][]string{zone: {addr}},
		}}
	}
	own := set("a", "10.0.0.1")
	c := Clusters{Others: []Other{{Name: "west"}, {Name: "east"}}}
	u := c.merge([]source.Update[policy.Endpoints]{own, set("a", "10.1.0.1"), set("b", "10.2.0.1")})
	if u.Err != nil {
		t.Fatal(u.Err)
	}
	want := map[string][]string{"a": {"10.0.0.1", "10.1.0.1"}, "b": {"10.2.0.1"}}
	if diff := cmp.Diff(want, u.Value.Zones); diff != "" {
		t.Error(diff)
	}
	if len(own.Value.Zones["a"]) != 1 {
		t.Errorf("what this cluster said was changed: %v", own.Value.Zones)
	}
}

package operator

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/operator/render"
	"github.com/tracegate/tracegate/observability/sli"
)

func TestReached(t *testing.T) {
	scaled := func(metrics ...v1alpha1.ScaleMetric) render.Pool {
		return render.Pool{Autoscaling: &v1alpha1.Autoscaling{MinReplicas: 1, MaxReplicas: 9, Metrics: metrics}}
	}
	cpu, qps := v1alpha1.ScaleMetric{CPUPercent: new(int32(70))}, v1alpha1.ScaleMetric{QPSPerPod: new(int64(50))}
	group := qps
	group.TrafficGroup = "acme"
	pools := map[sli.Hop]render.Pool{
		{Service: "front", Pool: "baseline"}: scaled(qps), {Service: "cart", Pool: "baseline"}: scaled(cpu, qps), {Service: "mail", Pool: "baseline"}: scaled(cpu),
		{Service: "stock", Pool: "baseline"}: {Replicas: 3}, {Service: "one", Pool: "baseline"}: scaled(group),
	}
	hops := []sli.Hop{
		{Service: "cart", Pool: "baseline", PerRequest: 6}, {Service: "front", Pool: "baseline", PerRequest: 2}, {Service: "mail", Pool: "baseline", PerRequest: 1},
		{Service: "stock", Pool: "baseline", PerRequest: 1}, {Service: "elsewhere", Pool: "baseline", PerRequest: 1}, {Service: "cart", Pool: "canary", PerRequest: 1},
		{Service: "one", Pool: "baseline", PerRequest: 1},
	}
	want := []along{{service: "cart", pool: "baseline", perRequest: 3, qpsPerPod: 50, min: 1, max: 9}}
	got := reached(v1alpha1.ScaleTarget{Service: "front", Pool: "baseline"}, hops, pools)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(along{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPathFloors(t *testing.T) {
	a := along{service: "a", pool: "p", perRequest: 2, qpsPerPod: 100, min: 1, max: 10}
	b := along{service: "b", pool: "p", perRequest: 0.5, qpsPerPod: 100, min: 2, max: 10}
	floor := func(service string, n int32) v1alpha1.PathFloor {
		return v1alpha1.PathFloor{Service: service, Pool: "p", Floor: n}
	}
	for _, c := range []struct {
		name   string
		rate   float64
		budget int32
		has    []v1alpha1.PathFloor
		want   []v1alpha1.PathFloor
	}{
		{"nothing", 0, 100, nil, nil},
		{"what there is is enough", 50, 100, nil, nil},
		{"only one needs more", 300, 100, nil, []v1alpha1.PathFloor{floor("a", 6)}},
		{"bounds of the pool", 1e9, 100, nil, []v1alpha1.PathFloor{floor("a", 10), floor("b", 10)}},
		{"share of the budget", 1e9, 8, nil, []v1alpha1.PathFloor{floor("a", 5), floor("b", 5)}},
		{"less keeps what holds", 0, 100, []v1alpha1.PathFloor{floor("a", 6)}, []v1alpha1.PathFloor{floor("a", 6)}},
		{"what holds counts", 1e9, 8, []v1alpha1.PathFloor{floor("a", 7)}, []v1alpha1.PathFloor{floor("a", 7), floor("b", 3)}},
		{"more of what holds", 400, 100, []v1alpha1.PathFloor{floor("a", 6)}, []v1alpha1.PathFloor{floor("a", 8)}},
		{"budget is used up", 1e9, 5, []v1alpha1.PathFloor{floor("a", 6)}, []v1alpha1.PathFloor{floor("a", 6)}},
		{"a pool that left the path", 300, 9, []v1alpha1.PathFloor{floor("gone", 7)}, []v1alpha1.PathFloor{floor("a", 3), floor("gone", 7)}},
	} {
		before := append([]v1alpha1.PathFloor(nil), c.has...)
		if diff := cmp.Diff(c.want, pathFloors([]along{a, b}, c.rate, c.budget, c.has)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if diff := cmp.Diff(before, c.has); diff != "" {
			t.Errorf("%s changes its argument:\n%s", c.name, diff)
		}
	}
}

func TestRoom(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	later, before := now.Add(time.Second).Format(time.RFC3339), now.Format(time.RFC3339)
	for _, c := range []struct {
		room, until string
		want        float64
	}{
		{"", "", 0}, {"120.5", later, 120.5}, {"120", before, 0}, {"120", "tomorrow", 0}, {"-3", later, 0}, {"NaN", later, 0}, {"Inf", later, 0}, {"much", later, 0},
	} {
		sp := &v1alpha1.ScalingPolicy{}
		sp.Annotations = map[string]string{v1alpha1.AnnotationRoom: c.room, v1alpha1.AnnotationRoomUntil: c.until}
		if got := room(sp, now); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

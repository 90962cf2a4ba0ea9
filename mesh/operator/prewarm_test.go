package operator_test

import (
	"testing"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/forecast"
	"github.com/tracegate/tracegate/mesh/operator"
)

func TestNeed(t *testing.T) {
	learned := func(at func(i int) float64) *forecast.Model {
		m := forecast.New(forecast.DefaultSmoothing(), 0)
		for i := range 60 {
			m.Observe(at(i))
		}
		return m
	}
	flat := learned(func(int) float64 { return 400 })
	ramp := learned(func(i int) float64 { return 10 * float64(i) }) // 590 at last
	spec := v1alpha1.ScalingPolicySpec{QPSPerPod: 100, Bounds: v1alpha1.Bounds{Min: 2, Max: 10}}
	lead := spec
	lead.LeadSeconds = 20
	step := lead
	step.MaxStep = new(int32(1))
	for _, c := range []struct {
		name  string
		spec  v1alpha1.ScalingPolicySpec
		model *forecast.Model
		qps   float64
		has   int32
		want  int32
	}{
		{"present only", spec, ramp, 590, 0, 6},
		{"part of a pod", spec, flat, 401, 0, 5},
		{"nothing", spec, flat, 0, 0, 2},
		{"ramp in 20 s", lead, ramp, 590, 0, 8},
		{"flat in 20 s", lead, flat, 400, 0, 4},
		{"a burst is not forecast away", lead, flat, 900, 0, 9},
		{"budget", spec, flat, 1e12, 0, 10},
		{"one step", step, ramp, 590, 5, 6},
		{"first step", step, ramp, 590, 0, 3},
		{"nothing learned", lead, forecast.New(forecast.DefaultSmoothing(), 0), 300, 0, 3},
	} {
		if got := operator.Need(c.spec, c.model, c.qps, c.has); got != c.want {
			t.Errorf("%s: %d pods, want %d", c.name, got, c.want)
		}
	}
}

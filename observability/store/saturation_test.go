package store_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// TestSaturation: the mean and the highest of the instances of each pool, and nothing of
// who said nothing in the window.
func TestSaturation(t *testing.T) {
	s, _, _ := open(t)
	begin := at(0)
	said := func(service, pool, instance, metric string, after time.Duration, value float64, attributes ...string) store.Point {
		p := store.Point{
			Kind: store.Gauge, Name: metric, Unit: "1", Time: begin.Add(after), Value: value, Attributes: map[string]string{},
			Source:  store.MetricSource{Service: service, Resource: map[string]string{"service.name": service, "service.instance.id": instance, semconv.Pool: pool}},
			Traffic: store.Traffic{Pool: pool},
		}
		for i := 0; i+1 < len(attributes); i += 2 {
			p.Attributes[attributes[i]] = attributes[i+1]
		}
		return p
	}
	missing := said("core", "baseline", "a", semconv.CPUUtilization, 3*time.Second, 9)
	missing.Flags = 1
	points := []store.Point{
		said("core", "baseline", "a", semconv.CPUUtilization, time.Second, 0.8),
		said("core", "baseline", "a", semconv.CPUUtilization, 2*time.Second, 1),
		said("core", "baseline", "b", semconv.CPUUtilization, 2*time.Second, 0.5),
		said("core", "baseline", "old", semconv.CPUUtilization, -time.Second, 1), // before the window
		said("core", "baseline", "late", semconv.CPUUtilization, 5*time.Second, 1),
		said("core", "baseline", "a", semconv.QueueUtilization, 2*time.Second, 0.25, semconv.Queue, "accepted"),
		said("core", "baseline", "a", semconv.QueueUtilization, 2*time.Second, 0.75, semconv.Queue, "other"),
		said("core", "baseline", "a", semconv.QueueUtilization, 2*time.Second, 1), // of no name
		missing,
		said("core", "baseline", "c", semconv.CPUUtilization, time.Second, math.NaN()),
		said("core", "", "x", semconv.CPUUtilization, time.Second, 1), // of no pool
		said("core", "canary", "gone", semconv.CPUUtilization, -time.Minute, 1),
		said("core", "canary", "gone", "process.cpu.time", time.Second, 1), // another metric
		said("cart", "isolated", "a", semconv.CPUUtilization, time.Second, 0.3, "cpu.mode", "user"),
		said("cart", "isolated", "a", semconv.CPUUtilization, time.Second, 0.3, "cpu.mode", "system"),
		said("cart", "isolated", "a", semconv.CPUUtilization, 2*time.Second, 0.2, "cpu.mode", "user"),
		said("cart", "isolated", "a", semconv.CPUUtilization, 2*time.Second, 0.4, "cpu.mode", "system"),
	}
	for i := range 2 { // sent twice, and stored twice
		if err := s.InsertPoints(t.Context(), fmt.Sprint(i), points); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Saturation(t.Context(), sli.Window{From: begin, To: begin.Add(5 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	want := []sli.Saturation{
		{Service: "cart", Pool: "isolated", Resource: sli.CPU, Mean: 0.6, Highest: 0.6, Instances: 1, Newest: begin.Add(2 * time.Second)},
		{Service: "core", Pool: "baseline", Resource: "accepted", Mean: 0.25, Highest: 0.25, Instances: 1, Newest: begin.Add(2 * time.Second)},
		{Service: "core", Pool: "baseline", Resource: sli.CPU, Mean: 0.7, Highest: 0.9, Instances: 2, Newest: begin.Add(2 * time.Second)},
		{Service: "core", Pool: "baseline", Resource: "other", Mean: 0.75, Highest: 0.75, Instances: 1, Newest: begin.Add(2 * time.Second)},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := s.Saturation(t.Context(), sli.Window{From: begin.Add(time.Minute), To: begin.Add(2 * time.Minute)}); err != nil || len(got) != 0 {
		t.Errorf("a window without data: %+v, %v", got, err)
	}
}

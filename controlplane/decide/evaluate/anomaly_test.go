package evaluate

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/anomaly"
)

// TestAnomalies plays few days at a low rate: what is plainly wrong is found, nearly nothing
// else is, and the workers do not matter. `go tool task bench:anomaly` has more.
func TestAnomalies(t *testing.T) {
	t.Parallel()
	plan := AnomalyPlan{First: Reporting, Rates: []float64{10}, Runs: 1, Faults: 3, Workers: 2}
	r := Anomalies(plan, anomaly.DefaultSettings())
	alarms := 0
	for _, shape := range AnomalyShapes() {
		for _, f := range r.False[shape] {
			alarms += f.Total()
			if f.Days != calm {
				t.Errorf("%s: %d days", shape, f.Days)
			}
		}
	}
	if alarms > 1 {
		t.Errorf("%d false alarms in %d group-days: %v", alarms, 3*calm, r.False)
	}
	for i, f := range AnomalyFaults() {
		plain := f.Latency >= 5 || f.Errors >= 0.2 || f.Rate > 1
		if found := r.Found[i][0]; plain && found < plan.Faults-1 {
			t.Errorf("%s: found %d of %d", f.Name, found, plan.Faults)
		}
	}
	t.Log("\n" + r.Markdown())
}

// TestAnomaliesDoNotDependOnWorkers plays a rate that costs next to nothing.
func TestAnomaliesDoNotDependOnWorkers(t *testing.T) {
	t.Parallel()
	plan := AnomalyPlan{First: Tuning, Rates: []float64{2, 3}, Runs: 2, Faults: 3, Workers: 3}
	many := Anomalies(plan, anomaly.DefaultSettings())
	plan.Workers, many.Plan.Workers = 1, 1
	if diff := cmp.Diff(many, Anomalies(plan, anomaly.DefaultSettings())); diff != "" {
		t.Errorf("with one worker (-many +one):\n%s", diff)
	}
}

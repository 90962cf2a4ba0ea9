package console_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/anomaly"
	"github.com/tracegate/tracegate/observability/console"
)

func TestAnomaliesAreJoined(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	found := func(before int, m anomaly.Measure, kind string, score float64) anomaly.Unusual {
		f := anomaly.Finding{Measure: m, Kind: kind, Time: at.Add(-time.Duration(before) * time.Minute), Length: time.Minute, Value: score, Usual: 1, Score: score, Words: "w"}
		return anomaly.Unusual{Group: canary.ID(), Env: "prod", Tenant: "x", Finding: f}
	}
	one := func(measure, kind string, since, until int, lasts bool, seen float64) console.Anomaly {
		return console.Anomaly{
			Group: canary.ID(), Env: "prod", Tenant: "x", Measure: measure, Kind: kind, Since: at.Add(-time.Duration(since) * time.Minute),
			Until: at.Add(-time.Duration(until) * time.Minute), Lasts: lasts, Seen: seen, Usual: 1, Words: "w",
		}
	}
	p95, errs := string(anomaly.Latency), string(anomaly.Errors)
	tests := []struct {
		name  string
		found []anomaly.Unusual
		want  []console.Anomaly
	}{
		{"none", nil, []console.Anomaly{}},
		{"one after the other, as the worst was", []anomaly.Unusual{found(3, anomaly.Latency, "unusual", 7), found(2, anomaly.Latency, "unusual", -9), found(1, anomaly.Latency, "unusual", 8)}, []console.Anomaly{one(p95, "unusual", 3, 0, true, -9)}},
		{"one minute between is not an end, two are", []anomaly.Unusual{found(9, anomaly.Latency, "unusual", 7), found(7, anomaly.Latency, "unusual", 7), found(4, anomaly.Latency, "unusual", 7)}, []console.Anomaly{one(p95, "unusual", 4, 3, false, 7), one(p95, "unusual", 9, 6, false, 7)}},
		{"what lasts is first, then the newest", []anomaly.Unusual{found(20, anomaly.Errors, "unusual", 7), found(9, anomaly.Latency, "change", 7), found(1, anomaly.Latency, "unusual", 7)}, []console.Anomaly{one(p95, "unusual", 1, 0, true, 7), one(p95, "change", 9, 8, false, 7), one(errs, "unusual", 20, 19, false, 7)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, console.NewAnomalies(tt.found, at)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestPastIsReadOnce: in pieces, each once and one after the other up to now, and then by
// the minute; while ClickHouse is away nothing is shown, and it goes on where it was.
func TestPastIsReadOnce(t *testing.T) {
	s := serve(t, nil)
	s.do(func() { s.slowSince = time.Now().Add(-9 * time.Minute) })
	c := s.caller(t)
	c.login()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, _ := c.stream(ctx)
	anomalies := func(want string) {
		t.Helper()
		for !strings.Contains(until(t, events, "anomalies"), want) {
		}
	}
	anomalies(`"state":"reading"`)
	anomalies(`"state":"ready"`)
	s.do(func() { s.statsErr, s.skew = errAway, 2*time.Minute })
	anomalies(`"state":"away"`)
	s.do(func() { s.statsErr = nil })
	anomalies(`"lasts":true`)
	s.do(func() {
		for i, w := range s.pieces {
			if w.To.Sub(w.From) > 6*time.Hour || i > 0 && !w.From.Equal(s.pieces[i-1].To) {
				t.Errorf("piece %d is %s to %s", i, w.From, w.To)
			}
		}
		if n := len(s.pieces); n < 30 || n > 32 || s.pieces[n-1].To.Sub(s.pieces[0].From) < 7*24*time.Hour {
			t.Errorf("%d pieces, from %s to %s", n, s.pieces[0].From, s.pieces[n-1].To)
		}
	})
}

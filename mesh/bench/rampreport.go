package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

type rampReport struct{ ours, stock ride }

func (r ride) errorPercent() float64 { return 100 * float64(r.failed) / float64(max(r.sent, 1)) }

// p95 of what was answered (nearest rank), in milliseconds.
func (r ride) p95() float64 {
	if len(r.took) == 0 {
		return 0
	}
	return float64(r.took[int(math.Ceil(0.95*float64(len(r.took))))-1]) / float64(time.Millisecond)
}

func (r rampReport) section() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## A ramp from %d to %d requests a second in %s\n\n", rampFrom, rampTo, rampRise)
	b.WriteString("| | requests | errors | P95 of the answered | metric to first answer of another process | processes |\n|---|---:|---:|---:|---:|---:|\n")
	for _, w := range []struct {
		name string
		ride
	}{{"forecast, looked at 4 times a second", r.ours}, {"rate only, measured and looked at every 15 s", r.stock}} {
		fmt.Fprintf(&b, "| %s | %d | %.2f%% | %.0f ms | %.2f s | %d |\n", w.name, w.sent, w.errorPercent(), w.p95(), w.first.Seconds(), w.processes)
	}
	fmt.Fprintf(&b, `
Processes are real, started by what %stracegate up%s scales with, behind Envoy and a control plane; each serves %.0f requests a second, one after the other, and lets %d wait. Statistics are played: two
seconds that ended half a second ago. %s

Repeat: %sgo tool task bench:ramp%s
`, "`", "`", 1/serverWork.Seconds(), serverQueue, benchdoc.Machine(), "`", "`")
	return b.String()
}

func (r rampReport) figures() string {
	return strings.Join([]string{
		benchdoc.Figure("ramp_errors", "percent", r.ours.errorPercent(), "stock_hpa_interval", r.stock.errorPercent()),
		benchdoc.Figure("ramp_p95", "ms", r.ours.p95(), "stock_hpa_interval", r.stock.p95()),
		benchdoc.Figure("metric_to_first_request", "s", r.ours.first.Seconds(), "stock_hpa_interval", r.stock.first.Seconds()),
		"",
	}, "\n")
}

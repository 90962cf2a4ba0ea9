// Package gauge asks a process for one of its metrics. It is a leaf.
package gauge

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// maxMetrics bounds an answer.
const maxMetrics = 8 << 20

// Read is the sum of a gauge over its labels, as a process at addr serves it at /metrics.
func Read(ctx context.Context, web *http.Client, addr, metric string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET /metrics: status %d", resp.StatusCode)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(resp.Body, maxMetrics))
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	family := families[metric]
	if family == nil {
		return 0, fmt.Errorf("no metric %s", metric)
	}
	var sum float64
	for _, m := range family.GetMetric() {
		sum += m.GetGauge().GetValue() + m.GetUntyped().GetValue()
	}
	return sum, nil
}

// Package goruntime reads what a Go process says about its own scheduler and garbage
// collector (runtime/metrics) on its /metrics endpoint: how long goroutines that could
// run waited for a thread, and how long the world stood still. Beside the kernel's
// delay of the same process it shows on which side of the system call time is lost.
//
// It needs no privilege and runs everywhere. The process has to export the two
// histograms: client_golang's Go collector does so when told to
// (collectors.MetricsScheduler, collectors.MetricsGC).
package goruntime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/tracegate/tracegate/bpf/hist"
)

// Name of the source.
const Name = "goruntime"

// The kinds of what is read.
const (
	KindGoroutine = "goroutine_wait" // runnable goroutine to running
	KindPause     = "gc_pause"       // world stopped for the garbage collector
)

// maxBody bounds an answer.
const maxBody = 4 << 20

// families are the names of runtime/metrics' histograms, by what client_golang calls
// them: today's name first.
var families = map[string][]string{
	KindGoroutine: {"go_sched_latencies_seconds"},
	KindPause:     {"go_sched_pauses_total_gc_seconds", "go_gc_pauses_seconds"},
}

// ErrNone is returned where the process serves metrics, but not these.
var ErrNone = errors.New("the process exports no go_sched_* histograms (enable collectors.MetricsScheduler and collectors.MetricsGC)")

// Read returns the histograms by kind, cumulative since the process began.
func Read(ctx context.Context, client *http.Client, url string) (map[string]hist.Histogram, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for runtime metrics: %w", err)
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for runtime metrics: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s for runtime metrics: %s", url, res.Status)
	}
	return parse(io.LimitReader(res.Body, maxBody))
}

func parse(r io.Reader) (map[string]hist.Histogram, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	got, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("read runtime metrics: %w", err)
	}
	out := map[string]hist.Histogram{}
	for kind, names := range families {
		for _, name := range names {
			f := got[name]
			if f == nil || f.GetType() != dto.MetricType_HISTOGRAM || len(f.GetMetric()) == 0 {
				continue
			}
			out[kind] = convert(f.GetMetric()[0].GetHistogram())
			break
		}
	}
	if len(out) == 0 {
		return nil, ErrNone
	}
	return out, nil
}

// convert puts each bucket's events at its middle (of the logarithm); those without an
// upper bound at the lower one. Counts stay exact, values become those of the bucket.
func convert(h *dto.Histogram) hist.Histogram {
	var out hist.Histogram
	var below uint64
	var from float64
	for _, b := range h.GetBucket() {
		n := b.GetCumulativeCount()
		to := b.GetUpperBound()
		if n > below {
			out.RecordN(middle(from, to), n-below)
			below = n
		}
		if !math.IsInf(to, 0) {
			from = max(to, 0)
		}
	}
	if n := h.GetSampleCount(); n > below {
		out.RecordN(seconds(from), n-below)
	}
	return out
}

func middle(from, to float64) time.Duration {
	switch {
	case math.IsInf(to, 0):
		return seconds(from)
	case from <= 0:
		return seconds(to / 2)
	default:
		return seconds(math.Sqrt(from * to))
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

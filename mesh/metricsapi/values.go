// Package metricsapi answers Kubernetes' autoscalers with what was measured of traffic
// groups, as an aggregated API server for external.metrics.k8s.io and
// custom.metrics.k8s.io:
//
//	traffic_group_qps               requests a second
//	traffic_group_error_free_qps    those of them that did not fail
//	traffic_group_p95_milliseconds  that 95 in 100 requests took at most, of the slowest group
//	traffic_group_error_ratio       0 to 1
//
// As an external metric the selector says of what (service, pool, group); as a custom one
// the object is a Service, which has the name of its MicroService. A metric per pod is
// the external one with target AverageValue, which Kubernetes divides by the pods.
//
// Each value bears the time it is about. Where telemetry is stale there is no value, never
// zero: an autoscaler without a metric adds no pods and takes none away. Zero means that
// telemetry is fresh and had nothing of this service.
//
// custom-metrics-apiserver, the usual library, lost: it is a whole API server (k8s.io/apiserver,
// 30 MB in the binary) around these two read-only calls.
package metricsapi

import (
	"errors"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// The metrics.
const (
	QPS        = "traffic_group_qps"
	ErrorFree  = "traffic_group_error_free_qps"
	P95        = "traffic_group_p95_milliseconds"
	ErrorRatio = "traffic_group_error_ratio"
)

// Metrics are all names.
var Metrics = []string{QPS, ErrorFree, P95, ErrorRatio}

// Why there is no value.
var (
	ErrStale   = errors.New("telemetry is stale")
	ErrUnknown = errors.New("no such metric")
)

// Snapshot is what was measured in one window.
type Snapshot struct {
	Window sli.Window
	Stats  []sli.Stats
}

// Newest is the start of the newest request in it.
func (s Snapshot) Newest() (t time.Time) {
	for _, st := range s.Stats {
		if st.Newest.After(t) {
			t = st.Newest
		}
	}
	return t
}

// Selection is whose requests count; empty fields select all.
type Selection struct {
	Service, Pool string
	Group         group.ID
}

// Value is one answer.
type Value struct {
	Milli int64     // thousandths
	At    time.Time // what it is about
}

// Value works one metric out. It fails with [ErrStale] where nothing of the snapshot is
// newer than staleAfter, and with [ErrUnknown].
func (s Snapshot) Value(metric string, of Selection, now time.Time, staleAfter time.Duration) (Value, error) {
	newest := s.Newest()
	if newest.IsZero() || now.Sub(newest) > staleAfter {
		return Value{}, fmt.Errorf("%w: its newest request is of %s", ErrStale, newest.UTC().Format(time.RFC3339))
	}
	var requests, failed uint64
	var p95 time.Duration
	for _, st := range s.Stats {
		if of.Service != "" && st.Service != of.Service || of.Pool != "" && st.Pool != of.Pool || of.Group != "" && st.Group != of.Group {
			continue
		}
		requests, failed, p95 = requests+st.Requests, failed+st.Errors, max(p95, st.P95)
	}
	v := Value{At: newest}
	switch metric {
	case QPS:
		v.Milli = s.perSecond(requests)
	case ErrorFree:
		v.Milli = s.perSecond(requests - min(failed, requests))
	case P95:
		v.Milli = p95.Microseconds()
	case ErrorRatio:
		if requests > 0 {
			v.Milli = int64(1000 * failed / requests)
		}
	default:
		return Value{}, fmt.Errorf("%w: %q", ErrUnknown, metric)
	}
	return v, nil
}

func (s Snapshot) perSecond(n uint64) (milli int64) {
	if seconds := s.Window.To.Sub(s.Window.From).Seconds(); seconds > 0 {
		milli = int64(1000 * float64(n) / seconds)
	}
	return milli
}

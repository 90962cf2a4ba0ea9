package store

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/tracegate/tracegate/observability/sli"
)

// KernelDuration is how long things of one kind took in the kernel for a service's pool,
// towards one target: connects, waits for a CPU, pauses.
type KernelDuration struct {
	Service string
	Pool    string
	Kind    string // what was timed, e.g. connect
	Target  string // the address on the other side, empty where there is none
	Events  uint64
	// P50, P95 and P99 are interpolated within a bucket, which is an octave wide; what
	// lies beyond the last bound is given as the last bound.
	P50, P95, P99 time.Duration
}

const kernelSQL = `
SELECT Service, Pool, Kind, Target, Events, P50, P95, P99
FROM traffic_kernel_duration(from = fromUnixTimestamp64Nano(%d, 'UTC'), to = fromUnixTimestamp64Nano(%d, 'UTC'))
ORDER BY Service, Pool, Kind, Target
LIMIT %d`

// KernelDurations says how long what the kernel probes timed in w took. The probes send
// cumulative histograms; the view traffic_kernel_duration (migration 0004) takes what they
// grew by between their first and their last point in w, over resets too. So w should be
// several times the probes' interval, and is exact to one of them at its start. What had
// no event is not there. Fails where more than MaxStats rows would come.
func (s *Store) KernelDurations(ctx context.Context, w sli.Window) ([]KernelDuration, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	rows, err := s.conn.Query(ctx, fmt.Sprintf(kernelSQL, w.From.UnixNano(), w.To.UnixNano(), MaxStats+1))
	if err != nil {
		return nil, fmt.Errorf("read kernel durations: %w", err)
	}
	defer rows.Close()
	var out []KernelDuration
	for rows.Next() {
		var d KernelDuration
		var p50, p95, p99 float64
		if err := rows.Scan(&d.Service, &d.Pool, &d.Kind, &d.Target, &d.Events, &p50, &p95, &p99); err != nil {
			return nil, fmt.Errorf("read kernel durations: %w", err)
		}
		d.P50, d.P95, d.P99 = seconds(p50), seconds(p95), seconds(p99)
		out = append(out, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read kernel durations: %w", err)
	}
	if len(out) > MaxStats {
		return nil, fmt.Errorf("read kernel durations: more than %d rows: ask for a shorter window", MaxStats)
	}
	return out, nil
}

// seconds rounds: a float of seconds is not exact to the nanosecond.
func seconds(s float64) time.Duration { return time.Duration(math.Round(s * float64(time.Second))) }

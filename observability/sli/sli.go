// Package sli is the vocabulary of measurement: what was counted for one traffic
// group in one window. observability/store fills it, controlplane/decide reads it.
// It is pure.
package sli

import (
	"time"

	"github.com/tracegate/tracegate/mesh/group"
)

// Window is a half-open interval [From, To) of span start times.
type Window struct {
	From, To time.Time
}

// Stats is what was measured for one group, service and pool in a window, over
// entry spans (semconv.Entry) only.
type Stats struct {
	Group    group.ID      `json:"group"`
	Color    group.Color   `json:"color"`
	Env      string        `json:"env"`
	Tenant   string        `json:"tenant"`
	Service  string        `json:"service"` // the service that served it, e.g. "core"
	Pool     string        `json:"pool"`    // the pool that served it; empty when no upstream answered
	Window   Window        `json:"window"`
	Requests uint64        `json:"requests"`
	Errors   uint64        `json:"errors"` // 5xx, no upstream, or span status Error
	P50      time.Duration `json:"p50"`
	P95      time.Duration `json:"p95"`
	P99      time.Duration `json:"p99"`
	Newest   time.Time     `json:"newest"` // start of the newest span counted: how fresh this is
}

// ErrorRatio is Errors/Requests, and 0 where nothing was counted.
func (s Stats) ErrorRatio() float64 {
	if s.Requests == 0 {
		return 0
	}
	return float64(s.Errors) / float64(s.Requests)
}

// QPS is requests per second of the window.
func (s Stats) QPS() float64 {
	d := s.Window.To.Sub(s.Window.From).Seconds()
	if d <= 0 {
		return 0
	}
	return float64(s.Requests) / d
}

// EdgeStats is what came in at one edge for a service and route, in a window.
type EdgeStats struct {
	Edge     string `json:"edge"` // its id
	Service  string `json:"service"`
	Route    string `json:"route"`
	Requests uint64 `json:"requests"`
	Errors   uint64 `json:"errors"` // as in Stats
}

// Second is what was counted for one group, service and pool in one second, with latencies
// whole, so that seconds can be added up.
type Second struct {
	Group    group.ID
	Color    group.Color
	Env      string
	Tenant   string
	Service  string
	Pool     string
	Start    time.Time
	Requests uint64
	Errors   uint64
	Latency  Histogram
	Newest   time.Time
}

// Hop is one pool that serves a group's requests.
type Hop struct {
	Service, Pool string
	// PerRequest is how many requests it got for each that came in at the edge.
	PerRequest float64
}

// CPU is the resource of [Saturation] that all processes have.
const CPU = "cpu"

// Saturation is how full one resource of a pool is, by what its instances say of
// themselves in a window.
type Saturation struct {
	Service   string    `json:"service"`
	Pool      string    `json:"pool"`
	Resource  string    `json:"resource"`  // [CPU], or the name of a bounded queue
	Mean      float64   `json:"mean"`      // of the instances; 1 is full
	Highest   float64   `json:"highest"`   // of one of them
	Instances uint64    `json:"instances"` // that said something
	Newest    time.Time `json:"newest"`    // when one did last: how fresh this is
}

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Names lists the kernel probes in the order they are shown.
func Names() []string {
	return []string{"tcpconnect", "schedlatency", "tcpretransmit", "acceptqueue", "gcpause"}
}

// Config is what an operator may set.
type Config struct {
	// Admin is the address of /healthz, /readyz, /metrics and /v1/probes; loopback.
	Admin string
	// Interval is the time between two readings.
	Interval time.Duration
	// Window is the time that quantiles and alerts look back, a multiple of Interval.
	Window time.Duration
	// Off names probes that are not to be loaded.
	Off []string
	// Budget is the share of one core that a probe may use before it samples, and at
	// last switches itself off. 0.01 is one percent.
	Budget float64
	// Thresholds are the waits that count as slow.
	Thresholds Thresholds
	// Targets names addresses: 127.0.0.1:9092 -> kafka.
	Targets map[string]string
	// Required makes Run fail when no probe can be loaded.
	Required bool
}

// Thresholds are the durations from which an event is slow: it becomes an exemplar,
// and when P95 of a window is above it, an alert.
type Thresholds struct {
	Connect   time.Duration // TCP connect
	Scheduler time.Duration // waiting for a CPU
	Accept    time.Duration // waiting in the accept queue
	Pause     time.Duration // stop of a Go program's world
}

// DefaultConfig returns the configuration in force where an operator sets nothing.
func DefaultConfig() Config {
	return Config{
		Admin: "127.0.0.1:9221", Interval: 2 * time.Second, Window: 10 * time.Second, Budget: 0.01,
		Thresholds: Thresholds{Connect: 200 * time.Millisecond, Scheduler: 10 * time.Millisecond, Accept: 200 * time.Millisecond, Pause: 10 * time.Millisecond},
	}
}

// Validate returns an error that names the key.
func (c Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Admin)
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("admin: %s is not a loopback address", host)
	}
	switch {
	case c.Interval < 100*time.Millisecond || c.Interval > time.Minute:
		return fmt.Errorf("interval: %v is not between 100ms and 1m", c.Interval)
	case c.Window < c.Interval || c.Window%c.Interval != 0 || c.Window/c.Interval > 60:
		return fmt.Errorf("window: %v is not 1 to 60 times the interval of %v", c.Window, c.Interval)
	case c.Budget <= 0 || c.Budget > 1:
		return fmt.Errorf("budget: %v is not above 0 and at most 1 core", c.Budget)
	}
	for _, name := range c.Off {
		if !slices.Contains(Names(), name) {
			return fmt.Errorf("off: %q is no probe; there are %v", name, Names())
		}
	}
	for key, d := range map[string]time.Duration{
		"connect": c.Thresholds.Connect, "scheduler": c.Thresholds.Scheduler, "accept": c.Thresholds.Accept, "pause": c.Thresholds.Pause,
	} {
		if d <= 0 {
			return fmt.Errorf("thresholds.%s: %v is not above 0", key, d)
		}
	}
	for addr := range c.Targets {
		if _, err := netip.ParseAddrPort(addr); err != nil {
			return fmt.Errorf("targets: %q is not an IP address and port", addr)
		}
	}
	return nil
}

// threshold returns from when on an event of a kind is slow; 0: never.
func (t Thresholds) threshold(kind string) time.Duration {
	switch kind {
	case "connect":
		return t.Connect
	case "wakeup", "preempted", "goroutine_wait":
		return t.Scheduler
	case "accept":
		return t.Accept
	case "stopped", "gc_pause":
		return t.Pause
	default:
		return 0
	}
}

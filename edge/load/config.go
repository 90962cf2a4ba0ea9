package load

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/tracegate/tracegate/observability/semconv"
)

// Config is where the product is and how hard to press it.
type Config struct {
	// Edge, EdgeAdmin and Control are base URLs of the edge, of Envoy's admin interface
	// and of the control API. Token opens the control API and core's admin interface.
	Edge, EdgeAdmin, Control string
	Token                    string
	// Cores are base URLs of core's admin interface, by pool.
	Cores map[string]string

	// Duration is how long the crowds press. Circle may add ReleaseWait to see the end.
	Duration time.Duration
	// Rate is requests per second and group; Users is people per group, in pairs.
	Rate  float64
	Users int
	// Reading lets people mostly read, so that rather the edge is pressed than the log on disk.
	Reading bool
	// MaxInFlight bounds the requests of a group that wait for an answer. More are not
	// started and counted as shed.
	MaxInFlight int
	// Settle bounds the wait for messages on their way when the load has ended.
	Settle time.Duration
	// Groups are who presses; the default is prod+search, canary+payment, prod+payment.
	Groups []Group

	// Fault is switched on in the pool FaultPool, and hurts the group FaultGroup.
	FaultPool, FaultGroup string
	FaultLatency          time.Duration
	FaultErrors           float64 // ratio, 0 to 1
	// FaultConnect makes the fault, in place of latency and errors, a dependency that
	// is slow to accept connections; each REST request of the pool needs one.
	FaultConnect bool
	// ReleaseWait bounds the wait for a release after Duration. When it is over an
	// operator's release is asked for, and the report says so.
	ReleaseWait time.Duration

	// Wait bounds each wait for what should happen: a decision, its acknowledgment, the
	// sockets. What does not come in that time is reported as missing.
	Wait time.Duration
	// Calm is how long Faults waits before the first kill and after each part has healed.
	Calm time.Duration

	// Every is the least time from one of [Changes] to the next; 0: each begins when every
	// edge has the one before.
	Every time.Duration
	// Renew, where not nil, renews a certificate of the edge; turn counts from 0.
	Renew func(turn int) error

	// Objective is the P95 that the policy of [Decisions] asks for. A machine that does not
	// keep it without any fault has nothing to show.
	Objective time.Duration
	// Forget is how long Decisions waits before each fault, so that no window still has the
	// one before.
	Forget time.Duration
	// Kill ends the core process of a pool, which is started again; Suspend stops the
	// receiver of telemetry until it is resumed. nil: it cannot be done, and the faults of
	// [Decisions] that need it are an error.
	Kill    func(pool string) error
	Suspend func() (resume func() error, err error)

	// Limits are what the promises are held to.
	Limits Limits

	// Format is "text" or "json".
	Format string
}

// Group is one traffic group of the lab.
type Group struct {
	Name   string      // env+tenant, as the edge must color it
	Host   string      // Host header
	Header http.Header // what the policy's cohort rule matches
	Pool   string      // where the policy sends it
}

// Limits are the bounds of promises.
type Limits struct {
	Decision   time.Duration // from the fault to the decision
	Programmed time.Duration // from the decision to Envoy's acknowledgment
	Heal       time.Duration // from a kill to the part's readiness
}

// DefaultConfig is for `tracegate up` with its default addresses; Token is missing.
func DefaultConfig() Config {
	return Config{
		Edge:      "http://127.0.0.1:8080",
		EdgeAdmin: "http://127.0.0.1:9901",
		Control:   "http://127.0.0.1:18001",
		Cores: map[string]string{
			semconv.PoolBaseline: "http://127.0.0.1:9201",
			semconv.PoolCanary:   "http://127.0.0.1:9202",
			semconv.PoolIsolated: "http://127.0.0.1:9203",
		},
		Duration:    time.Minute,
		Rate:        60,
		Users:       8,
		MaxInFlight: 512,
		Settle:      15 * time.Second,
		Groups:      DefaultGroups(),

		FaultPool: semconv.PoolCanary, FaultGroup: "canary+payment",
		FaultLatency: 600 * time.Millisecond, FaultErrors: 0.3,
		ReleaseWait: time.Minute,
		Wait:        15 * time.Second,
		Calm:        5 * time.Second,
		Objective:   500 * time.Millisecond,
		Forget:      quickLong + 2*time.Second,

		Limits: Limits{Decision: 3 * time.Second, Programmed: 300 * time.Millisecond, Heal: 30 * time.Second},
		Format: "text",
	}
}

// DefaultGroups are colored as they say by the policy that `tracegate up` starts with.
func DefaultGroups() []Group {
	return []Group{
		{Name: "prod+search", Host: "search.localhost", Pool: semconv.PoolBaseline},
		{Name: "canary+payment", Host: "payment.localhost", Header: http.Header{"Cookie": {"env=canary"}}, Pool: semconv.PoolCanary},
		{Name: "prod+payment", Host: "payment.localhost", Pool: semconv.PoolBaseline},
	}
}

// maxSamples bounds what is kept of a run: rate times duration times groups.
const maxSamples = 4_000_000

// Validate names the key that is wrong.
func (c Config) Validate() error {
	for key, address := range map[string]string{"edge": c.Edge, "edge admin": c.EdgeAdmin, "control": c.Control} {
		if err := Loopback(address); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	for pool, address := range c.Cores {
		if err := Loopback(address); err != nil {
			return fmt.Errorf("core of pool %s: %w", pool, err)
		}
	}
	switch {
	case c.Duration < time.Second:
		return errors.New("duration: must be at least 1s")
	case c.Duration > 24*time.Hour:
		return errors.New("duration: must be at most 24h")
	case !(c.Rate > 0 && c.Rate <= 100_000): // so that NaN is refused
		return errors.New("rate: must be above 0 and at most 100000")
	case c.Users < 2 || c.Users%2 != 0 || c.Users > 10_000:
		return errors.New("users: must be an even number from 2 to 10000")
	case len(c.Groups) == 0:
		return errors.New("groups: must not be empty")
	case c.Rate*(c.Duration+c.ReleaseWait).Seconds()*float64(len(c.Groups)) > maxSamples:
		return fmt.Errorf("rate, duration: more than %d requests", maxSamples)
	case c.MaxInFlight < 1 || c.MaxInFlight > 100_000:
		return errors.New("max in flight: must be from 1 to 100000")
	case c.Settle <= 0 || c.Wait <= 0:
		return errors.New("settle, wait: must be positive")
	case c.ReleaseWait < 0 || c.Calm < 0 || c.Forget < 0:
		return errors.New("release wait, calm: must not be negative")
	case c.Every < 0:
		return errors.New("every: must not be negative")
	case c.Limits.Decision <= 0 || c.Limits.Programmed <= 0 || c.Limits.Heal <= 0:
		return errors.New("limits: must be positive")
	case !(c.FaultErrors >= 0 && c.FaultErrors <= 1):
		return errors.New("fault errors: must be from 0 to 1")
	case c.Objective < 10*time.Millisecond || c.Objective > 10*time.Second:
		return errors.New("objective: must be from 10ms to 10s")
	case c.FaultLatency < 0:
		return errors.New("fault latency: must not be negative")
	case c.Format != "text" && c.Format != "json":
		return fmt.Errorf("format: %q is neither text nor json", c.Format)
	}
	return nil
}

// Loopback refuses anything that is not this machine.
func Loopback(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	if u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("%q is not an http URL", address)
	}
	host := u.Hostname()
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761, section 6.3
		return nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return fmt.Errorf("%q is not on this machine: the lab breaks what it is pointed at, so it takes loopback addresses only", net.JoinHostPort(host, u.Port()))
	}
	return nil
}

// Package fault injects trouble into a process on purpose: latency and errors, for the
// lab that shows how the circle reacts. It is off unless someone with the control token
// sets it, and always ends by itself.
//
// Latency and errors it only decides; core/api and core/session do what it says. Health checks and
// the admin listener are never touched.
package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Longest is how long a fault may last, so that a forgotten one ends.
const Longest = 10 * time.Minute

// Fault is one kind of trouble.
type Fault struct {
	Latency    time.Duration
	ErrorRatio float64 // 0 to 1
	// Dial is a loopback host:port that each REST request connects to before it is
	// served, as a service does whose dependency may be slow to answer.
	Dial string
	For  time.Duration
}

// Validate names the field that is wrong.
func (f Fault) Validate() error {
	switch {
	case f.Latency < 0 || f.Latency > time.Minute:
		return errors.New("latency_ms: must be 0 to 60000")
	case !(f.ErrorRatio >= 0 && f.ErrorRatio <= 1):
		return errors.New("error_ratio: must be 0 to 1")
	case f.Latency == 0 && f.ErrorRatio == 0 && f.Dial == "":
		return errors.New("latency_ms: or error_ratio must be above 0, or dial given")
	case f.Dial != "" && !loopback(f.Dial):
		return errors.New("dial: must be a loopback address and port")
	case f.For <= 0 || f.For > Longest:
		return errors.New("for_ms: must be 1 to 600000")
	}
	return nil
}

func loopback(addr string) bool {
	ap, err := netip.ParseAddrPort(addr)
	return err == nil && ap.Addr().IsLoopback() && ap.Port() != 0
}

// Injector holds the fault that is on. It is safe for concurrent use.
type Injector struct {
	now     func() time.Time
	current atomic.Pointer[active]
}

type active struct {
	Fault
	until time.Time
}

// New makes an injector that injects nothing.
func New(now func() time.Time) *Injector { return &Injector{now: now} }

// Set switches a valid fault on, in place of the one before, and says when it ends.
func (i *Injector) Set(f Fault) (until time.Time) {
	until = i.now().Add(f.For)
	i.current.Store(&active{Fault: f, until: until})
	return until
}

// Clear switches it off.
func (i *Injector) Clear() { i.current.Store(nil) }

// Roll says how long a request is delayed and whether it then fails.
func (i *Injector) Roll() (delay time.Duration, fail bool) {
	a := i.on()
	if a == nil {
		return 0, false
	}
	return a.Latency, a.ErrorRatio > 0 && rand.Float64() < a.ErrorRatio
}

// Dial connects to the fault's dependency, where it has one, and hangs up.
func (i *Injector) Dial(ctx context.Context) error {
	a := i.on()
	if a == nil || a.Dial == "" {
		return nil
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", a.Dial)
	if err != nil {
		return fmt.Errorf("connect to dependency: %w", err)
	}
	return conn.Close()
}

const dialTimeout = 10 * time.Second

// on is the fault that is on, or nil.
func (i *Injector) on() *active {
	a := i.current.Load()
	if a != nil && i.now().After(a.until) {
		i.current.CompareAndSwap(a, nil)
		return nil
	}
	return a
}

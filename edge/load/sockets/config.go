package sockets

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// Config is where the product is and how many connections it gets.
type Config struct {
	Door  string            // base URL that connections are opened to: the edge, or one core process
	Cores map[string]string // base URLs of core's admin interface, by pool
	Token string            // opens it

	Connections int
	PerUser     int           // connections of one user; core has a limit
	Sources     int           // loopback addresses that they come from
	Pings       float64       // a second, over all connections
	Duration    time.Duration // of pings
	Settle      time.Duration // in which connections that came or went are let alone
	Wait        time.Duration // for pongs that are still due when all pings are sent
	MaxKB       float64       // a connection may cost; 0: no promise is held to it
	Format      string        // text or json
}

// DefaultConfig is for `tracegate up` with its default addresses; Token is missing.
func DefaultConfig() Config {
	return Config{
		Door: "http://127.0.0.1:9101", Connections: 2000, PerUser: 8, Sources: 8, Pings: 2000, Duration: 10 * time.Second, Settle: 3 * time.Second, Wait: 10 * time.Second,
		MaxKB: 7.5, Format: "text",
	}
}

// few connections do not tell what one costs: the rest of the process varies by more.
const few = 1000

// maxPings bounds what is kept of a run.
const maxPings = 4_000_000

// spare files are for all else that this process has open.
const spare = 200

// Validate names the key that is wrong.
func (c Config) Validate(files uint64) error {
	switch {
	case c.Connections < 1 || c.Connections > 1_000_000:
		return errors.New("connections: must be 1 to 1000000")
	case uint64(c.Connections)+spare > files:
		return fmt.Errorf("connections: this process may open %d files, so at most %d; raise the limit (ulimit -n), or run several", files, max(0, int64(files)-spare)) //nolint:gosec // limits are small
	case c.PerUser < 1 || c.PerUser > 1000:
		return errors.New("per-user: must be 1 to 1000")
	case c.Sources < 1 || c.Sources > 250:
		return errors.New("sources: must be 1 to 250")
	case c.Connections/c.Sources > 25_000:
		return errors.New("sources: one address has ports for 25000 connections")
	case !(c.Pings > 0 && c.Pings <= 1_000_000): // so that NaN is refused
		return errors.New("pings: must be above 0 and at most 1000000")
	case c.Duration < time.Second || c.Duration > 24*time.Hour:
		return errors.New("duration: must be 1s to 24h")
	case c.Pings*c.Duration.Seconds() > maxPings:
		return fmt.Errorf("pings, duration: more than %d pings", maxPings)
	case c.Settle < 0:
		return errors.New("settle: must not be negative")
	case c.Wait < 0:
		return errors.New("wait: must not be negative")
	case !(c.MaxKB >= 0):
		return errors.New("max-kb: must not be negative")
	case c.Format != "text" && c.Format != "json":
		return fmt.Errorf("output: %q is neither text nor json", c.Format)
	}
	return nil
}

// openFiles is how many files this process may open. Go has raised that to what may be had.
func openFiles() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("read limit of open files: %w", err)
	}
	return l.Cur, nil
}

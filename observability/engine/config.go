package engine

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/tracegate/tracegate/mesh/secret"
)

// Config says where the engine keeps its data and what a client may ask of it.
type Config struct {
	// Library is the path of libchdb.so (edge/artifact installs it).
	Library string
	// DataDir is an absolute folder of the engine's own. One process at a time may
	// hold it.
	DataDir string
	// Addr is the loopback address to listen on.
	Addr string
	// User and Password are asked of every client. Password must not be empty.
	User     string
	Password secret.Text
	// MaxBody bounds a request's body, and once more its decompressed size, in bytes.
	MaxBody int64
	// MaxQuery bounds SQL text that comes in the body, with the data of an INSERT
	// that carries it in its text, in bytes.
	MaxQuery int64
	// MaxQueries is how many statements run at once; MaxWaiting more may wait for a
	// place, what comes then is refused with ClickHouse's code 202 and status 503.
	MaxQueries, MaxWaiting int
	// MaxMemory bounds what all statements together may use, in bytes.
	MaxMemory int64
	// File is a configuration file of ClickHouse's own (XML or YAML), for what is not said
	// here, such as clusters; empty: none.
	File string
	// Drain is how long running statements may go on after the context's end.
	Drain time.Duration
}

// DefaultConfig is Config without Library, DataDir and Password.
func DefaultConfig() Config {
	return Config{
		Addr:       "127.0.0.1:8123",
		User:       "tracegate",
		MaxBody:    256 << 20,
		MaxQuery:   16 << 20,
		MaxQueries: 16,
		MaxWaiting: 64,
		MaxMemory:  2 << 30,
		Drain:      10 * time.Second,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Library == "":
		return errors.New("library: path of libchdb.so is missing")
	case !filepath.IsAbs(c.DataDir):
		return fmt.Errorf("data_dir: %q is not an absolute path", c.DataDir)
	case c.User == "":
		return errors.New("user: must not be empty")
	case c.Password == "":
		return errors.New("password: must not be empty")
	case c.MaxBody <= 0:
		return errors.New("max_body: must be positive")
	case c.MaxQuery <= 0:
		return errors.New("max_query: must be positive")
	case c.MaxQueries <= 0:
		return errors.New("max_queries: must be positive")
	case c.MaxWaiting < 0:
		return errors.New("max_waiting: must not be negative")
	case c.MaxMemory <= 0:
		return errors.New("max_memory: must be positive")
	case c.Drain <= 0:
		return errors.New("drain: must be positive")
	}
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("addr: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("addr: %s is not a loopback address; the embedded engine speaks plain HTTP, so reach other machines with a ClickHouse server", c.Addr)
	}
	return nil
}

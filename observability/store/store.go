// Package store keeps spans, points of metrics, group statistics and decisions in ClickHouse, embedded
// (observability/engine) or a server: one client, clickhouse-go over HTTP, and the same
// SQL for both. Nothing else in the product knows ClickHouse's SQL.
//
// observability/ingest writes spans and points; the control plane reads [Store.GroupStats] every
// second and saves its decisions; the console reads everything. The package starts no
// goroutines and retries nothing: who calls it decides about that, with [Temporary].
//
// Group statistics come from states of seconds, tens of seconds and minutes that a
// materialized view keeps as spans arrive, so reading a window costs milliseconds however
// many spans it had. Counting raw spans on each read is simpler and lost: its cost grows
// with traffic, and the decision loop asks four times a second.
//
// On one node the tables are MergeTree. On a [Cluster] they are Replicated ones, under
// Distributed ones that have their names.
package store

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/tlsdial"
)

// Config says which ClickHouse to use.
type Config struct {
	// Addr is host:port of the HTTP interface, or with TLS of the HTTPS one.
	Addr string
	TLS  tlsdial.Config
	// Database is made by Migrate where it does not exist.
	Database string
	User     string
	Password secret.Text
	// Timeout bounds each statement but inserts of spans and points.
	Timeout time.Duration
	Cluster Cluster
	// Quotas are bytes that tables may take, by name; see [Store.Shrink].
	Quotas map[string]uint64
}

// DefaultConfig is the embedded engine, without its password.
func DefaultConfig() Config {
	return Config{Addr: "127.0.0.1:8123", Database: "tracegate", User: "tracegate", Timeout: 10 * time.Second, Cluster: DefaultCluster()}
}

var databaseName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate names the key that is wrong.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		return fmt.Errorf("addr: %w", err)
	}
	switch {
	case !databaseName.MatchString(c.Database):
		return fmt.Errorf("database: %q is not a name of letters, digits and underscores", c.Database)
	case c.User == "":
		return errors.New("user: must not be empty")
	case c.Timeout <= 0:
		return errors.New("timeout: must be positive")
	}
	if err := c.TLS.Validate(); err != nil {
		return fmt.Errorf("tls.%w", err)
	}
	if err := checkQuotas(c.Quotas); err != nil {
		return err
	}
	return c.Cluster.Validate()
}

// Store is safe for concurrent use.
type Store struct {
	cfg  Config
	tls  *tlsdial.Dialer
	conn driver.Conn
	// What follows is for the lock of the schema.
	owner     string
	lease     time.Duration
	migrating sync.Mutex
	renewed   time.Time // of migrating
	// What follows is for inserts of telemetry, see block.
	http        *http.Client
	lz4         *pool[*compress.Writer]
	spanBlocks  *pool[*block[Span]]
	logBlocks   *pool[*block[Log]]
	pointBlocks map[PointKind]*pool[*block[Point]]
}

const (
	idle            = 4  // bounds what is kept for the next insert
	idleConnections = 16 // all that several writers of each table use at once, nearly

	dialTimeout = 2 * time.Second
)

// Open checks cfg and connects to nothing yet, so it works while ClickHouse is away.
func Open(cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("clickhouse configuration: %w", err)
	}
	secure, err := tlsdial.New(cfg.TLS, dialTimeout)
	if err != nil {
		return nil, fmt.Errorf("open clickhouse client: %w", err)
	}
	conn, err := connect(cfg, secure, cfg.Database)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, tls: secure, conn: conn, owner: rand.Text(), lease: cfg.lease(),
		http: &http.Client{Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, DialTLSContext: secure.DialContext, MaxIdleConnsPerHost: idleConnections, IdleConnTimeout: time.Minute, DisableCompression: true,
		}},
		lz4:         newPool(idle, func() *compress.Writer { return compress.NewWriter(compress.LevelZero, compress.LZ4) }),
		spanBlocks:  newPool(idle, func() *block[Span] { return &block[Span]{columns: spanColumns()} }),
		logBlocks:   newPool(1, func() *block[Log] { return &block[Log]{columns: logColumns()} }),
		pointBlocks: map[PointKind]*pool[*block[Point]]{},
	}
	for _, kind := range PointKinds() {
		s.pointBlocks[kind] = newPool(1, func() *block[Point] { return &block[Point]{columns: pointColumns(kind)} })
	}
	return s, nil
}

// Close ends idle connections.
func (s *Store) Close() error {
	s.http.CloseIdleConnections()
	return s.conn.Close()
}

// Ping returns nil where ClickHouse answers and lets us in.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := s.conn.Ping(ctx); err != nil {
		return fmt.Errorf("ping clickhouse: %w", err)
	}
	return nil
}

func connect(cfg Config, secure *tlsdial.Dialer, database string) (driver.Conn, error) {
	opts := &clickhouse.Options{
		Protocol:     clickhouse.HTTP,
		Addr:         []string{cfg.Addr},
		Auth:         clickhouse.Auth{Database: database, Username: cfg.User, Password: string(cfg.Password)},
		Compression:  &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
		DialTimeout:  dialTimeout,
		ReadTimeout:  10 * time.Minute, // contexts bound every call
		MaxOpenConns: 8,
		MaxIdleConns: 8,
		Settings:     cfg.Cluster.settings(),
	}
	if cfg.TLS.Enabled {
		opts.TLS = &tls.Config{MinVersion: tls.VersionTLS12} // says that it is HTTPS; secure makes the connections
		opts.TransportFunc = func(t *http.Transport) (http.RoundTripper, error) {
			t.DialTLSContext, t.Proxy = secure.DialContext, nil // inserts know no proxy either
			return t, nil
		}
	}
	conn, err := clickhouse.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("open clickhouse client: %w", err)
	}
	return conn, nil
}

// URL is where the server answers.
func (c Config) URL() string {
	if c.TLS.Enabled {
		return "https://" + c.Addr
	}
	return "http://" + c.Addr
}

// Temporary says whether what failed with err may succeed later unchanged: everything,
// except where the data itself is refused, here (ErrUnfit) or by ClickHouse.
func Temporary(err error) bool {
	var ex *clickhouse.Exception
	if !errors.As(err, &ex) {
		return !errors.Is(err, ErrUnfit)
	}
	switch ex.Code {
	case 6, 26, 27, 33, 38, 41, 53, 69, 72, 117, 131, 321, 349: // cannot parse, type mismatch, incorrect data, too large, out of range
		return false
	}
	return true
}

// ErrUnfit says that rows do not fit their table.
var ErrUnfit = errors.New("rows do not fit their table")

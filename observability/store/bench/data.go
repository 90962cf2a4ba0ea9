package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tracegate/tracegate/observability/engine/enginebench"
	"github.com/tracegate/tracegate/observability/store"
)

// period is how long the generated traffic lasts, whatever its size: more spans are more
// traffic, and not more history, which is the harder of the two.
const period = time.Hour

// inserts is how many statements a database is filled with, in the order of time.
const inserts = 60

// database is generated traffic of one size.
type database struct {
	size  int
	name  string
	end   time.Time // of the traffic
	store *store.Store
	conn  driver.Conn
}

// spansSQL makes spans numbered from the first argument on, as many as the second. Four
// make a request, as in the product; the first is its entry. 30 groups, five routes,
// 1% 5xx, 1% 4xx, latencies lognormal with a median of 50 ms, P95 at 134 ms.
const spansSQL = `
INSERT INTO otel_traces (Timestamp, TraceId, SpanId, SpanName, SpanKind, ServiceName, ResourceAttributes, SpanAttributes, Duration, StatusCode,
    TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute, TrafficEntry)
WITH
    intDiv(number, 4) AS request, number %% 4 AS part, cityHash64(request) AS h,
    h %% 10 AS color, concat('tenant', toString(intDiv(h, 10) %% 3)) AS tenant,
    lower(leftPad(hex(toUInt32(color)), 8, '0')) AS hexColor,
    ['GET /v1/messages', 'POST /v1/messages', 'GET /v1/users', 'POST /v1/presence', 'GET /v1/channels'][intDiv(h, 30) %% 5 + 1] AS route,
    multiIf(intDiv(h, 150) %% 100 = 0, '503', intDiv(h, 150) %% 100 = 1, '404', '200') AS code
SELECT
    fromUnixTimestamp64Nano(toInt64(%d + intDiv(toUInt128(request) * %d, %d)), 'UTC'),
    concat(hexColor, lower(leftPad(hex(h), 24, '0'))), lower(hex(cityHash64(number))), concat('span ', toString(part)),
    ['Server', 'Producer', 'Consumer', 'Client'][part + 1], if(part = 0, 'edge', 'core'),
    map('service.name', if(part = 0, 'edge', 'core'), 'service.instance.id', concat('core-', toString(h %% 4))),
    map('http.request.method', 'POST', 'http.route', route, 'url.path', concat('/v1/', toString(h %% 100000)), 'http.response.status_code', code, 'server.address', 'core.local', 'client.address', '10.0.0.1'),
    toUInt64(exp(randNormal(17.73, 0.6, number))), if(code = '503', 'Error', 'Unset'),
    substring(lower(hex(MD5(concat(hexColor, '|prod|', tenant)))), 1, 6), hexColor, 'prod', tenant, 'core', if(color < 3, 'canary', 'baseline'), route, part = 0
FROM numbers(%d, %d)
SETTINGS max_insert_block_size = 262144, min_insert_block_size_rows = 262144, max_threads = 2`

// generate makes a migrated database of size spans that end now.
func generate(ctx context.Context, e *enginebench.Engine, size int) (*database, error) {
	d := &database{size: size, name: fmt.Sprintf("bench_%d", size), end: time.Now().UTC().Truncate(time.Second)}
	cfg := store.DefaultConfig()
	cfg.Addr, cfg.User, cfg.Password, cfg.Database, cfg.Timeout = e.Addr, enginebench.User, enginebench.Password, d.name, time.Minute
	var err error
	if d.store, err = store.Open(cfg); err != nil {
		return nil, err
	}
	if err := d.store.Migrate(ctx); err != nil {
		return nil, err
	}
	if d.conn, err = e.Connect(d.name); err != nil {
		return nil, err
	}
	begin := d.end.Add(-period)
	for i := range inserts {
		from, to := size/inserts*i, size/inserts*(i+1)
		if i == inserts-1 {
			to = size
		}
		sql := fmt.Sprintf(spansSQL, begin.UnixNano(), period.Nanoseconds(), (size+3)/4, from, to-from)
		if err := d.conn.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("generate spans: %w", err)
		}
	}
	return d, d.settle(ctx)
}

// settle waits until nothing is merged any more: what is measured is reading.
func (d *database) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for calm := 0; calm < 4; {
		var n uint64
		if err := d.conn.QueryRow(ctx, "SELECT count() FROM system.merges").Scan(&n); err != nil {
			return fmt.Errorf("wait for merges: %w", err)
		}
		if calm++; n > 0 {
			calm = 0
		}
		<-tick.C
	}
	return nil
}

func (d *database) drop(ctx context.Context) error {
	if err := d.conn.Exec(ctx, "DROP DATABASE "+d.name+" SYNC"); err != nil {
		return fmt.Errorf("drop %s: %w", d.name, err)
	}
	if err := d.conn.Close(); err != nil {
		return err
	}
	return d.store.Close()
}

-- Statistics by status class too, of seconds, tens of seconds and minutes, with latencies as
-- an exponential histogram instead of a t-digest: it merges exactly, in any order, at a
-- third of the cost, and can be read with SQL. Its buckets are OpenTelemetry's at scale 5:
-- bucket i counts durations above 2^(i/32) ns and up to 2^((i+1)/32) ns, so each is 2.2%
-- wide. A span that comes late is counted in its own second, at all levels.
--
-- All levels are in one table, the grain first in its key: what a window of minutes costs is
-- mostly the planning of its query, which three tables made twice as long, and an insert
-- writes one part. Granules are small, parts compact and LZ4 unpacks fast for the same
-- reason: a query reads all columns of a few thousand rows.
--
-- What the old statistics had is given up: spans are kept, and decisions look back a minute.
DROP VIEW IF EXISTS traffic_group_1s_mv;
DROP TABLE IF EXISTS traffic_group_1s;

CREATE TABLE IF NOT EXISTS traffic_group
(
    Grain UInt8 COMMENT 'seconds that a row is of: 1, 10 or 60',
    Second DateTime('UTC') COMMENT 'the first of them' CODEC(Delta, LZ4),
    TrafficGroup LowCardinality(String),
    TrafficColor LowCardinality(String),
    TrafficEnv LowCardinality(String),
    TrafficTenant LowCardinality(String),
    TrafficService LowCardinality(String),
    TrafficPool LowCardinality(String),
    TrafficRoute LowCardinality(String),
    StatusClass UInt8 COMMENT 'first digit of the HTTP status, 0 where there was none',
    Requests SimpleAggregateFunction(sum, UInt64),
    Errors SimpleAggregateFunction(sum, UInt64),
    Latency SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) COMMENT 'requests by bucket of an exponential histogram of nanoseconds, scale 5',
    Newest SimpleAggregateFunction(max, DateTime64(9, 'UTC'))
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(Second)
ORDER BY (Grain, Second, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute, StatusClass)
TTL Second + INTERVAL 14 DAY DELETE WHERE Grain = 1,
    Second + INTERVAL 30 DAY DELETE WHERE Grain = 10,
    Second + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 256, min_bytes_for_wide_part = 10000000000, min_rows_for_wide_part = 1000000000;

CREATE MATERIALIZED VIEW IF NOT EXISTS traffic_group_mv TO traffic_group AS
SELECT
    Grain, toDateTime(intDiv(At, Grain) * Grain, 'UTC') AS Second,
    TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute, StatusClass,
    sum(s.Requests) AS Requests, sum(s.Errors) AS Errors, sumMap(s.Latency) AS Latency, max(s.Newest) AS Newest
FROM
(
    SELECT
        toUnixTimestamp(Timestamp) AS At,
        TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute,
        toUInt8OrZero(substring(SpanAttributes['http.response.status_code'], 1, 1)) AS StatusClass,
        count() AS Requests,
        countIf(StatusCode = 'Error') AS Errors,
        sumMap(map(toInt16(ceil(log2(greatest(Duration, 1)) * 32) - 1), toUInt64(1))) AS Latency,
        max(Timestamp) AS Newest
    FROM otel_traces
    WHERE TrafficEntry
    GROUP BY At, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute, StatusClass
) AS s
ARRAY JOIN [1, 10, 60]::Array(UInt8) AS Grain
GROUP BY Grain, Second, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute, StatusClass;

-- Statistics for people: by steps of that many seconds, group, service and pool, with
-- quantiles in seconds, interpolated within their bucket.
CREATE OR REPLACE VIEW traffic_group_stats AS
WITH sums AS
(
    SELECT
        toStartOfInterval(l.Second, toIntervalSecond({step:UInt32})) AS Start,
        TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool,
        sum(l.Requests) AS Requests, sum(l.Errors) AS Errors, sumMap(l.Latency) AS Histogram
    FROM traffic_group AS l
    WHERE l.Grain = 1 AND l.Second >= {from:DateTime('UTC')} AND l.Second < {to:DateTime('UTC')}
    GROUP BY Start, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool
)
SELECT
    Start, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, Requests, Errors,
    mapKeys(Histogram) AS buckets,
    mapValues(Histogram) AS counts,
    arrayCumSum(counts) AS below,
    arrayMap(q -> q * (Requests - 1) + 0.5, [0.5, 0.95, 0.99]) AS ranks,
    arrayMap(rank -> arrayFirstIndex(n -> n >= rank, below), ranks) AS at,
    arrayMap((rank, i) -> exp2((buckets[i] + (rank - below[i - 1]) / counts[i]) / 32) / 1e9, ranks, at) AS quantiles,
    quantiles[1] AS P50, quantiles[2] AS P95, quantiles[3] AS P99
FROM sums;

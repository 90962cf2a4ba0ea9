CREATE TABLE IF NOT EXISTS schema_migrations (Version UInt32, Name String, Applied DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY Version;

-- Spans, with the column names of the OpenTelemetry collector's ClickHouse exporter, so
-- that its dashboards and queries work, and the traffic group first-class: it stands
-- first in the sorting key, because every question here is about a group.
CREATE TABLE IF NOT EXISTS otel_traces
(
    Timestamp DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    ParentSpanId String CODEC(ZSTD(1)),
    TraceState String CODEC(ZSTD(1)),
    SpanName LowCardinality(String) CODEC(ZSTD(1)),
    SpanKind LowCardinality(String) CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    Duration UInt64 COMMENT 'nanoseconds' CODEC(ZSTD(1)),
    StatusCode LowCardinality(String) COMMENT 'Unset, Ok, Error' CODEC(ZSTD(1)),
    StatusMessage String CODEC(ZSTD(1)),
    `Events.Timestamp` Array(DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    `Events.Name` Array(LowCardinality(String)) CODEC(ZSTD(1)),
    `Events.Attributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Links.TraceId` Array(String) CODEC(ZSTD(1)),
    `Links.SpanId` Array(String) CODEC(ZSTD(1)),
    `Links.TraceState` Array(String) CODEC(ZSTD(1)),
    `Links.Attributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    TrafficGroup LowCardinality(String) CODEC(ZSTD(1)),
    TrafficColor LowCardinality(String) CODEC(ZSTD(1)),
    TrafficEnv LowCardinality(String) CODEC(ZSTD(1)),
    TrafficTenant LowCardinality(String) CODEC(ZSTD(1)),
    TrafficService LowCardinality(String) COMMENT 'the service that served, for spans of the edge' CODEC(ZSTD(1)),
    TrafficPool LowCardinality(String) CODEC(ZSTD(1)),
    TrafficRoute LowCardinality(String) CODEC(ZSTD(1)),
    TrafficEntry Bool COMMENT 'a user waits for this span: it counts in the group statistics' CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_duration Duration TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (TrafficGroup, ServiceName, Timestamp)
TTL toDateTime(Timestamp) + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

-- One-second states for each group, service, pool and route. Time stands first in the
-- sorting key: what is asked for is a window of seconds, of all groups.
CREATE TABLE IF NOT EXISTS traffic_group_1s
(
    Second DateTime('UTC') CODEC(Delta, ZSTD(1)),
    TrafficGroup LowCardinality(String),
    TrafficColor LowCardinality(String),
    TrafficEnv LowCardinality(String),
    TrafficTenant LowCardinality(String),
    TrafficService LowCardinality(String),
    TrafficPool LowCardinality(String),
    TrafficRoute LowCardinality(String),
    Requests SimpleAggregateFunction(sum, UInt64),
    Errors SimpleAggregateFunction(sum, UInt64),
    Latency AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), UInt64) COMMENT 'nanoseconds',
    Newest SimpleAggregateFunction(max, DateTime64(9, 'UTC'))
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(Second)
ORDER BY (Second, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute)
TTL Second + INTERVAL 14 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS traffic_group_1s_mv TO traffic_group_1s AS
SELECT
    toDateTime(Timestamp, 'UTC') AS Second,
    TrafficGroup,
    TrafficColor,
    TrafficEnv,
    TrafficTenant,
    TrafficService,
    TrafficPool,
    TrafficRoute,
    count() AS Requests,
    countIf(StatusCode = 'Error') AS Errors,
    quantilesTDigestState(0.5, 0.95, 0.99)(Duration) AS Latency,
    max(Timestamp) AS Newest
FROM otel_traces
WHERE TrafficEntry
GROUP BY Second, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute;

-- Decisions as they were taken; a decision is saved again when edges have acknowledged
-- it, and the row with the latest Updated wins.
CREATE TABLE IF NOT EXISTS traffic_decisions
(
    Time DateTime64(9, 'UTC'),
    Id String,
    Action LowCardinality(String),
    TrafficGroup LowCardinality(String),
    TrafficColor LowCardinality(String),
    TrafficEnv LowCardinality(String),
    TrafficTenant LowCardinality(String),
    Service LowCardinality(String),
    FromPool LowCardinality(String),
    ToPool LowCardinality(String),
    Reason String,
    By String,
    Programmed DateTime64(9, 'UTC') COMMENT '1970 until every edge has acknowledged',
    Record String COMMENT 'the whole decision as JSON' CODEC(ZSTD(1)),
    Updated DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(Updated)
PARTITION BY toYYYYMM(Time)
ORDER BY (Time, Id)
TTL toDateTime(Time) + INTERVAL 1 YEAR;

-- Points of metrics, with the column names of the OpenTelemetry collector's ClickHouse
-- exporter, so that its dashboards and queries work, and the traffic group first-class.
-- Times have nanoseconds, as those of spans; the exporter has cut its own to seconds.
-- Attributes are written in the order of their keys, so a series is one value of them.
-- The metric stands first in the sorting key: what is asked for is one metric over a
-- window, of one service or of all; within an hour the points of a series lie together.
CREATE TABLE IF NOT EXISTS otel_metrics_gauge
(
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription String CODEC(ZSTD(1)),
    MetricUnit String CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    TimeUnix DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    Value Float64 CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    `Exemplars.FilteredAttributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Exemplars.TimeUnix` Array(DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    `Exemplars.Value` Array(Float64) CODEC(ZSTD(1)),
    `Exemplars.SpanId` Array(String) CODEC(ZSTD(1)),
    `Exemplars.TraceId` Array(String) CODEC(ZSTD(1)),
    TrafficGroup LowCardinality(String) CODEC(ZSTD(1)),
    TrafficColor LowCardinality(String) COMMENT 'empty where the point is of no group' CODEC(ZSTD(1)),
    TrafficEnv LowCardinality(String) CODEC(ZSTD(1)),
    TrafficTenant LowCardinality(String) CODEC(ZSTD(1)),
    TrafficPool LowCardinality(String) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (MetricName, ServiceName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
TTL toDateTime(TimeUnix) + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otel_metrics_sum
(
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription String CODEC(ZSTD(1)),
    MetricUnit String CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    TimeUnix DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    Value Float64 CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    `Exemplars.FilteredAttributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Exemplars.TimeUnix` Array(DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    `Exemplars.Value` Array(Float64) CODEC(ZSTD(1)),
    `Exemplars.SpanId` Array(String) CODEC(ZSTD(1)),
    `Exemplars.TraceId` Array(String) CODEC(ZSTD(1)),
    AggregationTemporality Int32 COMMENT '1 delta, 2 cumulative' CODEC(ZSTD(1)),
    IsMonotonic Bool CODEC(ZSTD(1)),
    TrafficGroup LowCardinality(String) CODEC(ZSTD(1)),
    TrafficColor LowCardinality(String) COMMENT 'empty where the point is of no group' CODEC(ZSTD(1)),
    TrafficEnv LowCardinality(String) CODEC(ZSTD(1)),
    TrafficTenant LowCardinality(String) CODEC(ZSTD(1)),
    TrafficPool LowCardinality(String) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (MetricName, ServiceName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
TTL toDateTime(TimeUnix) + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otel_metrics_histogram
(
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription String CODEC(ZSTD(1)),
    MetricUnit String CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    TimeUnix DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    Count UInt64 CODEC(Delta, ZSTD(1)),
    Sum Float64 CODEC(ZSTD(1)),
    BucketCounts Array(UInt64) CODEC(ZSTD(1)),
    ExplicitBounds Array(Float64) CODEC(ZSTD(1)),
    `Exemplars.FilteredAttributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Exemplars.TimeUnix` Array(DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    `Exemplars.Value` Array(Float64) CODEC(ZSTD(1)),
    `Exemplars.SpanId` Array(String) CODEC(ZSTD(1)),
    `Exemplars.TraceId` Array(String) CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Min Float64 CODEC(ZSTD(1)),
    Max Float64 CODEC(ZSTD(1)),
    AggregationTemporality Int32 COMMENT '1 delta, 2 cumulative' CODEC(ZSTD(1)),
    TrafficGroup LowCardinality(String) CODEC(ZSTD(1)),
    TrafficColor LowCardinality(String) COMMENT 'empty where the point is of no group' CODEC(ZSTD(1)),
    TrafficEnv LowCardinality(String) CODEC(ZSTD(1)),
    TrafficTenant LowCardinality(String) CODEC(ZSTD(1)),
    TrafficPool LowCardinality(String) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (MetricName, ServiceName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
TTL toDateTime(TimeUnix) + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otel_metrics_exponential_histogram
(
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription String CODEC(ZSTD(1)),
    MetricUnit String CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    TimeUnix DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    Count UInt64 CODEC(Delta, ZSTD(1)),
    Sum Float64 CODEC(ZSTD(1)),
    Scale Int32 CODEC(ZSTD(1)),
    ZeroCount UInt64 CODEC(ZSTD(1)),
    PositiveOffset Int32 CODEC(ZSTD(1)),
    PositiveBucketCounts Array(UInt64) CODEC(ZSTD(1)),
    NegativeOffset Int32 CODEC(ZSTD(1)),
    NegativeBucketCounts Array(UInt64) CODEC(ZSTD(1)),
    `Exemplars.FilteredAttributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Exemplars.TimeUnix` Array(DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    `Exemplars.Value` Array(Float64) CODEC(ZSTD(1)),
    `Exemplars.SpanId` Array(String) CODEC(ZSTD(1)),
    `Exemplars.TraceId` Array(String) CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Min Float64 CODEC(ZSTD(1)),
    Max Float64 CODEC(ZSTD(1)),
    AggregationTemporality Int32 COMMENT '1 delta, 2 cumulative' CODEC(ZSTD(1)),
    TrafficGroup LowCardinality(String) CODEC(ZSTD(1)),
    TrafficColor LowCardinality(String) COMMENT 'empty where the point is of no group' CODEC(ZSTD(1)),
    TrafficEnv LowCardinality(String) CODEC(ZSTD(1)),
    TrafficTenant LowCardinality(String) CODEC(ZSTD(1)),
    TrafficPool LowCardinality(String) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (MetricName, ServiceName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
TTL toDateTime(TimeUnix) + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otel_metrics_summary
(
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription String CODEC(ZSTD(1)),
    MetricUnit String CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    TimeUnix DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    Count UInt64 CODEC(Delta, ZSTD(1)),
    Sum Float64 CODEC(ZSTD(1)),
    `ValueAtQuantiles.Quantile` Array(Float64) CODEC(ZSTD(1)),
    `ValueAtQuantiles.Value` Array(Float64) CODEC(ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    TrafficGroup LowCardinality(String) CODEC(ZSTD(1)),
    TrafficColor LowCardinality(String) COMMENT 'empty where the point is of no group' CODEC(ZSTD(1)),
    TrafficEnv LowCardinality(String) CODEC(ZSTD(1)),
    TrafficTenant LowCardinality(String) CODEC(ZSTD(1)),
    TrafficPool LowCardinality(String) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (MetricName, ServiceName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
TTL toDateTime(TimeUnix) + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

-- How long what the kernel probes time took within a window: what the cumulative
-- histograms of traffic.kernel.duration grew by from their first point in the window to
-- their last, by service, pool, kind and target. A stream is what counts from one start;
-- one that started within the window counts whole, and so does what follows a reset.
-- Quantiles are in seconds, interpolated within the bucket; beyond the last bound they
-- are the last bound.
CREATE OR REPLACE VIEW traffic_kernel_duration AS
WITH
    streams AS
    (
        SELECT
            ServiceName, TrafficPool, Attributes, ExplicitBounds, StartTimeUnix, BucketCounts,
            row_number() OVER stream AS position,
            arrayResize(lagInFrame(BucketCounts) OVER stream, length(BucketCounts)) AS before
        FROM otel_metrics_histogram
        WHERE MetricName = 'traffic.kernel.duration' AND AggregationTemporality = 2 AND bitAnd(Flags, 1) = 0 AND notEmpty(BucketCounts)
          AND TimeUnix >= {from:DateTime64(9, 'UTC')} AND TimeUnix < {to:DateTime64(9, 'UTC')}
        WINDOW stream AS (PARTITION BY ServiceName, ResourceAttributes, Attributes, ExplicitBounds, StartTimeUnix ORDER BY TimeUnix ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
    ),
    buckets AS
    (
        SELECT
            ServiceName AS Service, TrafficPool AS Pool, Attributes['kind'] AS Kind, Attributes['server.address'] AS Target, upper,
            sum(n) AS events
        FROM
        (
            SELECT
                *,
                multiIf(
                    position = 1 AND StartTimeUnix < {from:DateTime64(9, 'UTC')}, BucketCounts,
                    arrayExists((now, was) -> now < was, BucketCounts, before), arrayResize(emptyArrayUInt64(), length(BucketCounts)),
                    before) AS base
            FROM streams
        )
        ARRAY JOIN
            arrayPushBack(ExplicitBounds, inf) AS upper,
            arrayMap((now, was) -> toUInt64(now - was), BucketCounts, base) AS n
        GROUP BY Service, Pool, Kind, Target, upper
    ),
    distributions AS
    (
        SELECT
            Service, Pool, Kind, Target,
            arraySort(groupArray((upper, events))) AS list,
            list.1 AS uppers,
            list.2 AS counts,
            arrayCumSum(counts) AS below
        FROM buckets
        GROUP BY Service, Pool, Kind, Target
    )
SELECT
    Service, Pool, Kind, Target,
    below[-1] AS Events,
    arrayMap(
        (rank, i) -> if(i = length(uppers), uppers[i - 1], uppers[i - 1] + (uppers[i] - uppers[i - 1]) * (rank - below[i - 1]) / counts[i]),
        arrayMap(q -> q * Events, [0.5, 0.95, 0.99]) AS ranks,
        arrayMap(rank -> arrayFirstIndex(n -> n >= rank, below), ranks)) AS quantiles,
    quantiles[1] AS P50, quantiles[2] AS P95, quantiles[3] AS P99
FROM distributions
WHERE Events > 0;

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

-- Log records, with the column names of the OpenTelemetry collector's ClickHouse exporter,
-- and the traffic group first-class, as in otel_traces. A record is of a group where it,
-- or its resource, states a color, or where its trace is of one; else TrafficGroup and
-- TrafficColor are empty. TimestampTime is there for tools that filter by it.
CREATE TABLE IF NOT EXISTS otel_logs
(
    Timestamp DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    TimestampTime DateTime('UTC') ALIAS toDateTime(Timestamp, 'UTC'),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    TraceFlags UInt8,
    SeverityText LowCardinality(String) CODEC(ZSTD(1)),
    SeverityNumber UInt8,
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    Body String CODEC(ZSTD(1)),
    ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion LowCardinality(String) CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    EventName String CODEC(ZSTD(1)),
    TrafficGroup LowCardinality(String) CODEC(ZSTD(1)),
    TrafficColor LowCardinality(String) COMMENT 'empty where the record is of no group' CODEC(ZSTD(1)),
    TrafficEnv LowCardinality(String) CODEC(ZSTD(1)),
    TrafficTenant LowCardinality(String) CODEC(ZSTD(1)),
    TrafficPool LowCardinality(String) CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_lower_body lower(Body) TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (TrafficGroup, ServiceName, Timestamp)
TTL toDateTime(Timestamp) + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

-- Up to when a receiver has stored all it was given: while there is no traffic nothing else
-- tells silence from a fault. One row a receiver is kept.
CREATE TABLE IF NOT EXISTS traffic_watermark
(
    Receiver String,
    Time DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(Time)
ORDER BY Receiver
TTL toDateTime(Time) + INTERVAL 1 DAY;

-- Who calls whom, how often and how it went, by five seconds: the service map. Each row is
-- said by one span, that of who waits, so that no join of spans is needed and a call that
-- never arrived counts: the edge's span for what it served, a client's, a producer's and a
-- consumer's span for the rest. Groups are not in it, which keeps it to some rows a step.
--
-- What a span called is in columns of its own, which the writer fills: to look up eight
-- names in each map of attributes here took a third of the time of an insert. Joining
-- children with parents over a minute of spans costs with traffic, each time somebody looks.
ALTER TABLE otel_traces
    ADD COLUMN IF NOT EXISTS CallVerb LowCardinality(String) COMMENT 'how it called another part, empty where it did not' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS CallSystem LowCardinality(String) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS CallTarget LowCardinality(String) CODEC(ZSTD(1));

CREATE TABLE IF NOT EXISTS traffic_call
(
    Second DateTime('UTC') COMMENT 'the first of five' CODEC(Delta, LZ4),
    Caller LowCardinality(String),
    CallerPool LowCardinality(String),
    Verb LowCardinality(String) COMMENT 'serve, command, call, query, publish, receive, process',
    System LowCardinality(String) COMMENT 'kafka, postgresql, ...; empty for a service',
    Target LowCardinality(String),
    TargetPool LowCardinality(String),
    Requests SimpleAggregateFunction(sum, UInt64),
    Errors SimpleAggregateFunction(sum, UInt64),
    Latency SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) COMMENT 'as in traffic_group'
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(Second)
ORDER BY (Second, Caller, CallerPool, Verb, System, Target, TargetPool)
TTL Second + INTERVAL 3 DAY
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 256, min_bytes_for_wide_part = 10000000000, min_rows_for_wide_part = 1000000000;

CREATE MATERIALIZED VIEW IF NOT EXISTS traffic_call_mv TO traffic_call AS
SELECT
    Second, Caller, CallerPool, Verb, System, Target, TargetPool,
    sum(n) AS Requests, sum(bad) AS Errors, sumMap(map(bucket, n)) AS Latency
FROM
(
    SELECT
        toDateTime(intDiv(toUnixTimestamp(Timestamp), 5) * 5, 'UTC') AS Second,
        if(TrafficEntry, 'edge', ServiceName) AS Caller,
        if(TrafficEntry, '', TrafficPool) AS CallerPool,
        CallVerb AS Verb, CallSystem AS System, CallTarget AS Target,
        if(TrafficEntry, TrafficPool, '') AS TargetPool,
        toInt16(ceil(log2(greatest(Duration, 1)) * 32) - 1) AS bucket,
        count() AS n,
        countIf(StatusCode = 'Error') AS bad
    FROM otel_traces
    WHERE CallVerb != ''
    GROUP BY Second, Caller, CallerPool, Verb, System, Target, TargetPool, bucket
)
GROUP BY Second, Caller, CallerPool, Verb, System, Target, TargetPool;

-- Rows of all routes and status classes together, under the grains 101, 110 and 160: what a
-- window of a group costs is mostly the merging of histograms, and a group has some ten rows
-- of routes for one of these. Who leaves routes out reads the others, as before.
ALTER TABLE traffic_group MODIFY COLUMN Grain UInt8 COMMENT 'seconds that a row is of: 1, 10 or 60; 100 more: of all routes and status classes';

ALTER TABLE traffic_group MODIFY TTL Second + INTERVAL 14 DAY DELETE WHERE Grain IN (1, 101),
    Second + INTERVAL 30 DAY DELETE WHERE Grain IN (10, 110),
    Second + INTERVAL 90 DAY
SETTINGS materialize_ttl_after_modify = 0;

DROP VIEW IF EXISTS traffic_group_mv;

ALTER TABLE traffic_group DELETE WHERE Grain > 100 SETTINGS mutations_sync = 1;

-- Of what is there, what a page shows when it is opened.
INSERT INTO traffic_group (Grain, Second, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute, StatusClass, Requests, Errors, Latency, Newest)
SELECT
    g.Grain + 100, g.Second, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, '', 0,
    sum(g.Requests), sum(g.Errors), sumMap(g.Latency), max(g.Newest)
FROM traffic_group AS g
WHERE g.Grain < 100 AND (g.Second > now() - INTERVAL 1 HOUR OR g.Grain = 60 AND g.Second > now() - INTERVAL 1 DAY)
GROUP BY g.Grain, g.Second, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool;

CREATE MATERIALIZED VIEW IF NOT EXISTS traffic_group_mv TO traffic_group AS
SELECT
    Grain, toDateTime(intDiv(At, Grain % 100) * (Grain % 100), 'UTC') AS Second,
    TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool,
    if(Grain > 100, '', s.Route) AS TrafficRoute, if(Grain > 100, 0, s.Status) AS StatusClass,
    sum(s.Requests) AS Requests, sum(s.Errors) AS Errors, sumMap(s.Latency) AS Latency, max(s.Newest) AS Newest
FROM
(
    SELECT
        toUnixTimestamp(Timestamp) AS At,
        TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute AS Route,
        toUInt8OrZero(substring(SpanAttributes['http.response.status_code'], 1, 1)) AS Status,
        count() AS Requests,
        countIf(StatusCode = 'Error') AS Errors,
        sumMap(map(toInt16(ceil(log2(greatest(Duration, 1)) * 32) - 1), toUInt64(1))) AS Latency,
        max(Timestamp) AS Newest
    FROM otel_traces
    WHERE TrafficEntry
    GROUP BY At, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, Route, Status
) AS s
ARRAY JOIN [1, 10, 60, 101, 110, 160]::Array(UInt8) AS Grain
GROUP BY Grain, Second, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute, StatusClass;

-- What arrives is written five times a second, so parts are small: ClickHouse then merges each
-- five of them with all that lies there up to some megabytes, and so wrote each row 35 times
-- under 1,500 requests a second. With this it is 3 times, and a day has some 20 parts. Not
-- traffic_group: what decisions are made by is read four times a second, and is slower from
-- many parts.
ALTER TABLE otel_traces MODIFY SETTING merge_selector_base = 20;

ALTER TABLE otel_metrics_sum MODIFY SETTING merge_selector_base = 20;

ALTER TABLE otel_metrics_histogram MODIFY SETTING merge_selector_base = 20;

ALTER TABLE traffic_call MODIFY SETTING merge_selector_base = 20;

-- The sorting key finds a group. Who asked for an environment or a tenant read all groups:
-- with these, stretches of rows that have none of it are left out. They are of what is
-- written from now on, which after three days is all.
ALTER TABLE otel_traces ADD INDEX IF NOT EXISTS idx_traffic_env TrafficEnv TYPE set(16) GRANULARITY 1;

ALTER TABLE otel_traces ADD INDEX IF NOT EXISTS idx_traffic_tenant TrafficTenant TYPE set(16) GRANULARITY 1;

ALTER TABLE otel_logs ADD INDEX IF NOT EXISTS idx_traffic_env TrafficEnv TYPE set(16) GRANULARITY 1;

ALTER TABLE otel_logs ADD INDEX IF NOT EXISTS idx_traffic_tenant TrafficTenant TYPE set(16) GRANULARITY 1;

-- When a trace was, under the name and with the columns that Grafana's ClickHouse plugin asks
-- before it reads the trace. The collector's exporter keeps a table of it; here the index of
-- trace ids finds it.
CREATE OR REPLACE VIEW otel_traces_trace_id_ts AS
SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End
FROM otel_traces
GROUP BY TraceId;

-- Spans are given up: there is no older schema.
DROP TABLE IF EXISTS otel_traces;

-- Older versions count spans.
DROP VIEW IF EXISTS traffic_group_1s_mv;

DROP TABLE IF EXISTS traffic_group_1s;

-- Decisions are given up here; the control plane's journal stays.
DROP TABLE IF EXISTS traffic_decisions;

-- Points of metrics are given up: older versions did not keep any.
DROP VIEW IF EXISTS traffic_kernel_duration;

DROP TABLE IF EXISTS otel_metrics_gauge;

DROP TABLE IF EXISTS otel_metrics_sum;

DROP TABLE IF EXISTS otel_metrics_histogram;

DROP TABLE IF EXISTS otel_metrics_exponential_histogram;

DROP TABLE IF EXISTS otel_metrics_summary;

-- Back to one level of t-digests; what the new statistics had is given up, as on the way up.
DROP VIEW IF EXISTS traffic_group_stats;

DROP VIEW IF EXISTS traffic_group_mv;

DROP TABLE IF EXISTS traffic_group;

DROP VIEW IF EXISTS traffic_group_1s_mv;

DROP TABLE IF EXISTS traffic_group_1s;

CREATE TABLE IF NOT EXISTS traffic_group_1s
(
    Second DateTime('UTC') CODEC(Delta, ZSTD(1)),
    TrafficGroup LowCardinality(String),
    TrafficColor LowCardinality(String),
    TrafficEnv LowCardinality(String),
    TrafficTenant LowCardinality(String),
    TrafficService LowCardinality(String),
    TrafficPool LowCardinality(String),
    TrafficRoute LowCardinality(String),
    Requests SimpleAggregateFunction(sum, UInt64),
    Errors SimpleAggregateFunction(sum, UInt64),
    Latency AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), UInt64) COMMENT 'nanoseconds',
    Newest SimpleAggregateFunction(max, DateTime64(9, 'UTC'))
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(Second)
ORDER BY (Second, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute)
TTL Second + INTERVAL 14 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS traffic_group_1s_mv TO traffic_group_1s AS
SELECT
    toDateTime(Timestamp, 'UTC') AS Second,
    TrafficGroup,
    TrafficColor,
    TrafficEnv,
    TrafficTenant,
    TrafficService,
    TrafficPool,
    TrafficRoute,
    count() AS Requests,
    countIf(StatusCode = 'Error') AS Errors,
    quantilesTDigestState(0.5, 0.95, 0.99)(Duration) AS Latency,
    max(Timestamp) AS Newest
FROM otel_traces
WHERE TrafficEntry
GROUP BY Second, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool, TrafficRoute;

-- Log records are given up: older versions did not keep any.
DROP TABLE IF EXISTS otel_logs;

-- Older versions take silence for a fault.
DROP TABLE IF EXISTS traffic_watermark;

-- The service map is made of what arrives, and begins anew on the way up. The columns of
-- otel_traces stay: an older program neither reads nor fills them.
DROP VIEW IF EXISTS traffic_call_mv;

DROP TABLE IF EXISTS traffic_call;

-- Without the rows of all routes together.
DROP VIEW IF EXISTS traffic_group_mv;

ALTER TABLE traffic_group DELETE WHERE Grain > 100 SETTINGS mutations_sync = 1;

ALTER TABLE traffic_group MODIFY TTL Second + INTERVAL 14 DAY DELETE WHERE Grain = 1,
    Second + INTERVAL 30 DAY DELETE WHERE Grain = 10,
    Second + INTERVAL 90 DAY
SETTINGS materialize_ttl_after_modify = 0;

ALTER TABLE traffic_group MODIFY COLUMN Grain UInt8 COMMENT 'seconds that a row is of: 1, 10 or 60';

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

-- Merges as ClickHouse has them by default.
ALTER TABLE otel_traces RESET SETTING merge_selector_base;

ALTER TABLE otel_metrics_sum RESET SETTING merge_selector_base;

ALTER TABLE otel_metrics_histogram RESET SETTING merge_selector_base;

ALTER TABLE traffic_call RESET SETTING merge_selector_base;

DROP VIEW IF EXISTS otel_traces_trace_id_ts;

ALTER TABLE otel_traces DROP INDEX IF EXISTS idx_traffic_env;

ALTER TABLE otel_traces DROP INDEX IF EXISTS idx_traffic_tenant;

ALTER TABLE otel_logs DROP INDEX IF EXISTS idx_traffic_env;

ALTER TABLE otel_logs DROP INDEX IF EXISTS idx_traffic_tenant;

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

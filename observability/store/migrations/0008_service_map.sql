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

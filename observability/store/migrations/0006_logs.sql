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

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

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

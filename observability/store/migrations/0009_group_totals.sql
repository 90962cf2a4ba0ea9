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

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

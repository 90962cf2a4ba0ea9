DROP VIEW IF EXISTS otel_traces_trace_id_ts;
ALTER TABLE otel_traces DROP INDEX IF EXISTS idx_traffic_env;
ALTER TABLE otel_traces DROP INDEX IF EXISTS idx_traffic_tenant;
ALTER TABLE otel_logs DROP INDEX IF EXISTS idx_traffic_env;
ALTER TABLE otel_logs DROP INDEX IF EXISTS idx_traffic_tenant;

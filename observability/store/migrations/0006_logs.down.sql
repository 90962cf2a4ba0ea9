-- Log records are given up: older versions did not keep any.
DROP TABLE IF EXISTS otel_logs;

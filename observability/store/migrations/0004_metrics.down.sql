-- Points of metrics are given up: older versions did not keep any.
DROP VIEW IF EXISTS traffic_kernel_duration;
DROP TABLE IF EXISTS otel_metrics_gauge;
DROP TABLE IF EXISTS otel_metrics_sum;
DROP TABLE IF EXISTS otel_metrics_histogram;
DROP TABLE IF EXISTS otel_metrics_exponential_histogram;
DROP TABLE IF EXISTS otel_metrics_summary;

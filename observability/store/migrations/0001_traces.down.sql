-- Spans are given up: there is no older schema.
DROP TABLE IF EXISTS otel_traces;

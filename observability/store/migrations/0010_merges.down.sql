-- Merges as ClickHouse has them by default.
ALTER TABLE otel_traces RESET SETTING merge_selector_base;
ALTER TABLE otel_metrics_sum RESET SETTING merge_selector_base;
ALTER TABLE otel_metrics_histogram RESET SETTING merge_selector_base;
ALTER TABLE traffic_call RESET SETTING merge_selector_base;

-- What arrives is written five times a second, so parts are small: ClickHouse then merges each
-- five of them with all that lies there up to some megabytes, and so wrote each row 35 times
-- under 1,500 requests a second. With this it is 3 times, and a day has some 20 parts. Not
-- traffic_group: what decisions are made by is read four times a second, and is slower from
-- many parts.
ALTER TABLE otel_traces MODIFY SETTING merge_selector_base = 20;
ALTER TABLE otel_metrics_sum MODIFY SETTING merge_selector_base = 20;
ALTER TABLE otel_metrics_histogram MODIFY SETTING merge_selector_base = 20;
ALTER TABLE traffic_call MODIFY SETTING merge_selector_base = 20;

-- Older versions count spans.
DROP VIEW IF EXISTS traffic_group_1s_mv;
DROP TABLE IF EXISTS traffic_group_1s;

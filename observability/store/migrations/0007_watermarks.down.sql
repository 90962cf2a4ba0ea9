-- Older versions take silence for a fault.
DROP TABLE IF EXISTS traffic_watermark;

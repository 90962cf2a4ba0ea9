-- Up to when a receiver has stored all it was given: while there is no traffic nothing else
-- tells silence from a fault. One row a receiver is kept.
CREATE TABLE IF NOT EXISTS traffic_watermark
(
    Receiver String,
    Time DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(Time)
ORDER BY Receiver
TTL toDateTime(Time) + INTERVAL 1 DAY;

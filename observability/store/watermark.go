package store

import (
	"context"
	"fmt"
	"time"
)

// forgotten is how long a receiver that says nothing counts: what it took may be on its disk.
const forgotten = 10 * time.Minute

// Mark notes that a receiver has stored all that it was given until then.
func (s *Store) Mark(ctx context.Context, receiver string, until time.Time) error {
	if err := s.exec(ctx, "INSERT INTO traffic_watermark (Receiver, Time) SELECT ?, fromUnixTimestamp64Nano(?)", receiver, until.UnixNano()); err != nil {
		return fmt.Errorf("write watermark: %w", err)
	}
	return nil
}

// Watermark is until when every receiver that was heard of in the last ten minutes has
// stored all that it was given; zero where there is none. So a window that ends before it
// and is empty had no traffic.
func (s *Store) Watermark(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var at int64
	sql := "SELECT toUnixTimestamp64Nano(min(Last)) FROM (SELECT max(Time) AS Last FROM traffic_watermark GROUP BY Receiver HAVING Last > now64(9) - toIntervalSecond(?))"
	if err := s.conn.QueryRow(ctx, sql, int64(forgotten/time.Second)).Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("read watermark: %w", err)
	}
	if at == 0 {
		return time.Time{}, nil
	}
	return time.Unix(0, at).UTC(), nil
}

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// SaveDecision writes d. Saved again with the same ID and Time, the later one wins.
func (s *Store) SaveDecision(ctx context.Context, d decide.Decision) error {
	record, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode decision %s: %w", d.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	b, err := s.conn.PrepareBatch(ctx, `INSERT INTO traffic_decisions (Time, Id, Action, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, Service, FromPool, ToPool, Reason, By, Programmed, Record, Updated)`)
	if err != nil {
		return fmt.Errorf("save decision %s: %w", d.ID, err)
	}
	programmed := d.Programmed
	if programmed.IsZero() {
		programmed = time.Unix(0, 0)
	}
	if err := b.Append(d.Time, d.ID, string(d.Action), string(d.Group), d.Color.String(), d.Env, d.Tenant, d.Service, d.FromPool, d.ToPool, d.Reason, d.By, programmed, string(record), time.Now()); err != nil {
		_ = b.Abort()
		return fmt.Errorf("save decision %s: %w", d.ID, err)
	}
	if err := b.Send(); err != nil {
		return fmt.Errorf("save decision %s: %w", d.ID, err)
	}
	return nil
}

// Decisions returns the newest decisions first, limit of them at most.
func (s *Store) Decisions(ctx context.Context, limit int) ([]decide.Decision, error) {
	return s.decisions(ctx, "", limit)
}

// DecisionsIn returns the decisions that were taken in w, newest first, limit of them at
// most; where groups are named, those on them only.
func (s *Store) DecisionsIn(ctx context.Context, w sli.Window, limit int, only ...group.ID) ([]decide.Decision, error) {
	where, args := "WHERE Time >= fromUnixTimestamp64Nano(?) AND Time < fromUnixTimestamp64Nano(?)", []any{w.From.UnixNano(), w.To.UnixNano()}
	if len(only) > 0 {
		where, args = where+" AND has(?, TrafficGroup)", append(args, only)
	}
	return s.decisions(ctx, where, limit, args...)
}

func (s *Store) decisions(ctx context.Context, where string, limit int, args ...any) ([]decide.Decision, error) {
	if limit < 1 {
		return nil, fmt.Errorf("read decisions: limit %d is not positive", limit)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	rows, err := s.conn.Query(ctx, fmt.Sprintf("SELECT Record FROM traffic_decisions FINAL %s ORDER BY Time DESC, Id DESC LIMIT %d", where, limit), args...)
	if err != nil {
		return nil, fmt.Errorf("read decisions: %w", err)
	}
	defer rows.Close()
	var out []decide.Decision
	for rows.Next() {
		var record string
		if err := rows.Scan(&record); err != nil {
			return nil, fmt.Errorf("read decisions: %w", err)
		}
		var d decide.Decision
		if err := json.Unmarshal([]byte(record), &d); err != nil {
			return nil, fmt.Errorf("read decisions: %w", err)
		}
		out = append(out, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read decisions: %w", err)
	}
	return out, nil
}

package account

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// Sockets is the connections of this process; it must not block.
type Sockets interface {
	// End closes those of a session of a user, with a code that says so.
	End(userID, session string)
}

// ended is the sessions of which this process must not believe tokens any more. They are
// kept for as long as such a token may be good, so how many there are is bounded by how
// fast sessions can be made, which the rate of log-ins bounds.
type ended struct {
	mu sync.RWMutex
	at map[string]time.Time
}

func (e *ended) has(session string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	_, is := e.at[session]
	return is
}

// add returns those that are new.
func (e *ended) add(list []chat.Ended) (fresh []chat.Ended) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range list {
		if _, known := e.at[s.ID]; !known {
			e.at[s.ID] = s.At
			fresh = append(fresh, s)
		}
	}
	return fresh
}

// forget forgets those that ended before a time.
func (e *ended) forget(before time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, at := range e.at {
		if at.Before(before) {
			delete(e.at, id)
		}
	}
}

const (
	// endedOverlap is how far back each look goes before the last one, for the clocks of
	// processes differ and a commit comes after the time that it names.
	endedOverlap = time.Minute
	// endedFor is how long an end is remembered in the store beyond the life of a token:
	// so long a process may be unable to read and still learn which sockets to close.
	endedFor = 24 * time.Hour
	// sweepEvery is how often what is over is deleted.
	sweepEvery = 10 * time.Minute
)

// Load reads which sessions have ended. Tokens must not be verified before it.
func (s *Service) Load(ctx context.Context) error {
	_, err := s.look(ctx, s.deps.Now().Add(-s.cfg.TokenTTL-endedOverlap))
	return err
}

// look reads which sessions have ended since a time, and returns those that are new.
func (s *Service) look(ctx context.Context, since time.Time) ([]chat.Ended, error) {
	list, err := s.deps.Store.EndedSince(ctx, since)
	if err != nil {
		return nil, fmt.Errorf("read ended sessions: %w", err)
	}
	return s.ended.add(list), nil
}

// Look makes Run look soon: another process has ended a session.
func (s *Service) Look() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run keeps up with the sessions that other processes end, closes their sockets here, and
// sweeps what is over, until ctx is done. A message between processes only makes it look
// sooner: one that is lost costs EndedEvery. While the store cannot be read, what is known
// stays known, and tokens live to their end.
func (s *Service) Run(ctx context.Context) error {
	t := time.NewTicker(s.cfg.EndedEvery)
	defer t.Stop()
	last, swept := s.deps.Now(), s.deps.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-s.wake:
		}
		now := s.deps.Now()
		fresh, err := s.look(ctx, last.Add(-endedOverlap))
		if err != nil {
			s.metrics.lookErrors.Inc()
			continue
		}
		last = now
		s.close(fresh)
		s.ended.forget(now.Add(-s.cfg.TokenTTL - 2*endedOverlap))
		if now.Sub(swept) >= sweepEvery {
			swept = now
			s.sweep(ctx, now)
		}
	}
}

func (s *Service) sweep(ctx context.Context, now time.Time) {
	if err := s.deps.Store.SweepSessions(ctx, now.Add(-s.cfg.SessionTTL), now.Add(-s.cfg.TokenTTL-endedFor)); err != nil {
		s.metrics.lookErrors.Inc()
	}
}

// finish makes it known that sessions have ended: here at once, elsewhere soon.
func (s *Service) finish(list []chat.Ended, reason string) {
	s.metrics.sessions.WithLabelValues(reason).Add(float64(len(list)))
	s.close(s.ended.add(list))
	told := map[string]bool{}
	for _, e := range list {
		if !told[e.UserID] {
			told[e.UserID] = true
			s.deps.Tell(e.UserID)
		}
	}
}

func (s *Service) close(list []chat.Ended) {
	for _, e := range list {
		s.deps.Sockets.End(e.UserID, e.ID)
	}
}

package client

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// historyPage is how much of the history is asked for at once.
const historyPage = 200

// compare asks what the history ends with, where resume could not give what was missed,
// and lists the conversations that go on after their position. One that ends before it has
// lost messages, as after a restored backup, and may have others under their numbers, as
// all the others may: then all begin anew.
func (s *Session) compare(ctx context.Context, c *conn) (missing []string, err error) {
	for conversation, last := range s.Positions() {
		page, _, err := s.user.HistoryBefore(ctx, conversation, math.MaxInt64, 1)
		if err != nil {
			return nil, err
		}
		end := int64(0)
		for _, m := range page.Messages {
			end = m.Seq
		}
		if end < last {
			s.restart(c)
			return slices.Collect(maps.Keys(s.Positions())), nil
		}
		if end > last {
			missing = append(missing, conversation)
		}
	}
	return missing, nil
}

// restart forgets the positions and says so.
func (s *Session) restart(c *conn) {
	s.inMu.Lock()
	s.in.restart()
	s.inMu.Unlock()
	s.cfg.OnEvent(Event{Kind: Reset, Time: time.Now(), Hello: c.hello, Served: c.served})
}

// repair pages the history from the last message delivered to its end.
func (s *Session) repair(ctx context.Context, conversation string) error {
	s.mu.Lock()
	s.stats.Repairs++
	s.mu.Unlock()
	for {
		s.inMu.Lock()
		after := s.in.last(conversation)
		s.inMu.Unlock()
		page, _, err := s.user.History(ctx, conversation, after, historyPage)
		if err != nil {
			return err
		}
		if len(page.Messages) == 0 {
			return nil
		}
		for _, m := range page.Messages {
			s.receive(m)
		}
		s.inMu.Lock()
		stuck := s.in.last(conversation) <= after
		s.inMu.Unlock()
		if stuck {
			return fmt.Errorf("history has no message after seq %d of %s", after, conversation)
		}
	}
}

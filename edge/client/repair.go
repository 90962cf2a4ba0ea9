package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// historyPage is how much of the history is asked for at once.
const historyPage = 200

// compare asks what the history ends with, where resume could not give what was missed,
// and lists the conversations that go on after their position. One that ends before it has
// lost messages, as after a restored backup, and may have others under their numbers, as
// all the others may: then all begin anew.
func (s *Session) compare(ctx context.Context, c *conn) (missing []string, err error) {
	for conversation, last := range s.Positions() {
		list, ok, err := s.history(ctx, conversation, "before", math.MaxInt64, 1)
		if err != nil {
			return nil, err
		}
		end := int64(0)
		for _, m := range list {
			end = m.Seq
		}
		if ok && end < last {
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
		list, ok, err := s.history(ctx, conversation, "after", after, historyPage)
		if err != nil {
			return err
		}
		if !ok || len(list) == 0 {
			return nil
		}
		for _, m := range list {
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

// history reads a part of a conversation's history. ok is false where core knows of no such
// conversation of the user's (it is younger than a restored backup, or was followed by
// mistake): it is not followed any more. Any other refusal is a reason to connect again and
// not, as one of the handshake, to end the session; but for one of the log-in.
func (s *Session) history(ctx context.Context, conversation, from string, seq int64, limit int) (list []protocol.Message, ok bool, err error) {
	page, _, err := s.user.history(ctx, conversation, from, seq, limit)
	refusal, refused := errors.AsType[*protocol.Error](err)
	switch {
	case !refused || refusal.Code == protocol.CodeUnauthenticated:
		return page.Messages, err == nil, err
	case refusal.Code == protocol.CodeNotFound && refusal.Field == "conversation": // an edge without routes names no field
		s.inMu.Lock()
		s.in.forget(conversation)
		s.inMu.Unlock()
		return nil, false, nil
	default:
		return nil, false, errors.New(err.Error())
	}
}

// Package search finds messages by their words.
//
// One process, `tracegate search`, has the index (bleve) and answers all core processes by
// a small HTTP interface ([Client]); core never waits for it except to search. For more
// queries, or so that one may die, run several of them: each is a whole copy with a group
// of its own on the log, and core asks the next where one does not answer. An index in
// every core process lost: its memory and its writing would be next to the sockets, N
// times. An index split by conversations lost for now: a copy of 100 million messages is a
// disk of some 40 GB, and a user's search would ask all parts.
//
// # What is in it
//
// A document for each message that is there now: terms, conversation, sender, seq and time,
// no text. How far a conversation is in the index is kept in the index, in the same write as
// its documents, so a killed process goes on without a loss and nothing is there twice. The
// log only says that a conversation has something new ([core/queue.Follower]); what that is
// is read from the database, in the order of seq, edits and recalls included. So replaying
// the log is always safe, and a missing, broken or foreign index is simply made anew.
//
// # What one may see
//
// The index is asked for the conversations that the user is or was in at that moment, and
// what it finds is then read from the database by the rule of the history: after joining,
// until leaving, not recalled, with the newest text, which must still have what was looked
// for. An index that lags behind can miss something, and never shows what may not be seen.
//
// Its caller is [Run]; it does not know SQL or Kafka.
package search

import (
	"context"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Store is where messages are; see core/store.
type Store interface {
	Heads(ctx context.Context, userIDs ...string) (map[string]map[string]chat.Span, error)
	MessagesAt(ctx context.Context, userID string, places []chat.Place) ([]protocol.Message, error)
	Searchables(ctx context.Context, conversation string, after int64, limit int) ([]chat.Searchable, error)
	ConversationHeads(ctx context.Context, after string, limit int) ([]chat.Head, error)
}

// Searcher answers queries.
type Searcher struct {
	index *Index
	store Store
}

// NewSearcher prepares a searcher.
func NewSearcher(index *Index, store Store) *Searcher { return &Searcher{index: index, store: store} }

// rounds is how often the index is asked for one page: where much of what it finds may
// not be seen, a page may have fewer results than asked for, and a next one all the same.
const rounds = 5

// Search answers a query. Its errors are *protocol.Error, or of the index or the store.
func (s *Searcher) Search(ctx context.Context, q Query) (protocol.FoundPage, error) {
	page := protocol.FoundPage{Results: []protocol.Found{}}
	phrases, from, bad := parse(q)
	if bad != nil {
		return page, bad
	}
	spans, err := s.spans(ctx, q)
	if err != nil || len(spans) == 0 {
		return page, err
	}
	asked := build(q, phrases, spans)
	for range rounds {
		size := q.Limit + 1 // one more, to know whether there is a next page
		found, err := s.index.find(ctx, asked, from, size)
		if err != nil {
			return page, err
		}
		shown, err := s.show(ctx, q.UserID, found, phrases)
		if err != nil {
			return page, err
		}
		for _, f := range found {
			if len(page.Results) == q.Limit {
				page.Next = from.String()
				return page, nil
			}
			from = f
			if r, ok := shown[f.place]; ok {
				page.Results = append(page.Results, r)
			}
		}
		if len(found) < size {
			return page, nil
		}
	}
	page.Next = from.String()
	return page, nil
}

// spans is what the user may see of the conversations that are searched.
func (s *Searcher) spans(ctx context.Context, q Query) (map[string]chat.Span, error) {
	heads, err := s.store.Heads(ctx, q.UserID)
	if err != nil {
		return nil, fmt.Errorf("read conversations: %w", err)
	}
	spans := heads[q.UserID]
	if q.Conversation == "" {
		return spans, nil
	}
	span, ok := spans[q.Conversation]
	if !ok {
		return nil, chat.NoConversation()
	}
	return map[string]chat.Span{q.Conversation: span}, nil
}

// show reads what was found, as far as the user may see it and it still has what is looked
// for.
func (s *Searcher) show(ctx context.Context, userID string, found []cursor, phrases []phrase) (map[place]protocol.Found, error) {
	places := make([]chat.Place, 0, len(found))
	for _, f := range found {
		places = append(places, chat.Place{Conversation: f.conversation, Seq: f.seq})
	}
	out := map[place]protocol.Found{}
	if len(places) == 0 {
		return out, nil
	}
	messages, err := s.store.MessagesAt(ctx, userID, places)
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	for _, m := range messages {
		if m.Recalled {
			continue
		}
		text := m.Text
		if m.File != nil {
			text = joinedText(m.Text, m.File.Name)
		}
		if spans, ok := matches(analyze(text), phrases); ok {
			out[place{m.Conversation, m.Seq}] = protocol.Found{Message: m, Snippet: snippet(text, spans)}
		}
	}
	return out, nil
}

// joinedText is a text and the name of its file as one.
func joinedText(text, fileName string) string {
	if text == "" {
		return fileName
	}
	return text + "\n" + fileName
}

// indexBatch is how many entries are taken up at a time; they are held in memory.
const indexBatch = 500

// catchUp takes up all that conversations have, in batches of what several of them have.
func catchUp(ctx context.Context, index *Index, store Store, conversations ...string) (taken int, err error) {
	var batch []Update
	size := 0
	flush := func() error {
		err := index.Apply(batch...)
		if err == nil {
			taken += size
		}
		batch, size = nil, 0
		return err
	}
	for _, c := range conversations {
		at, err := index.Position(c)
		if err != nil {
			return taken, fmt.Errorf("read position: %w", err)
		}
		for more := true; more; {
			entries, err := store.Searchables(ctx, c, at, indexBatch)
			if err != nil {
				return taken, err
			}
			if more = len(entries) == indexBatch; len(entries) > 0 {
				batch, size, at = append(batch, Update{c, entries}), size+len(entries), entries[len(entries)-1].Seq
			}
			if size < indexBatch {
				continue
			}
			if err := flush(); err != nil {
				return taken, err
			}
		}
	}
	return taken, flush()
}

// queryTimeout is how long a search may take.
const queryTimeout = 5 * time.Second

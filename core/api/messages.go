package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/session"
)

func (s *server) postMessage(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	var in struct {
		ClientID string `json:"client_id"`
		Text     string `json:"text"`
		ReplyTo  int64  `json:"reply_to"`
	}
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	m := protocol.Send{Conversation: r.PathValue("id"), ClientID: in.ClientID, Text: in.Text, ReplyTo: in.ReplyTo}
	return s.accepted(w, r, func(done func(protocol.Accepted, error)) {
		s.deps.Acceptor.Accept(r.Context(), id.User, m, traceID(r), done)
	})
}

func (s *server) patchMessage(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	var in struct {
		ClientID string `json:"client_id"`
		Text     string `json:"text"`
	}
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	seq, err := pathSeq(r)
	if err != nil {
		return err
	}
	m := protocol.Edit{Conversation: r.PathValue("id"), Seq: seq, ClientID: in.ClientID, Text: in.Text}
	return s.accepted(w, r, func(done func(protocol.Accepted, error)) {
		s.deps.Acceptor.Edit(r.Context(), id.User, m, traceID(r), done)
	})
}

func (s *server) deleteMessage(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	seq, err := pathSeq(r)
	if err != nil {
		return err
	}
	m := protocol.Recall{Conversation: r.PathValue("id"), Seq: seq}
	return s.accepted(w, r, func(done func(protocol.Accepted, error)) {
		s.deps.Acceptor.Recall(r.Context(), id.User, m, traceID(r), done)
	})
}

func pathSeq(r *http.Request) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue("seq"), 10, 64)
	if err != nil || n < 1 {
		return 0, protocol.NewError(protocol.CodeInvalidArgument, "seq", "seq must be that of a message")
	}
	return n, nil
}

// accepted answers when something is durable in the log.
func (s *server) accepted(w http.ResponseWriter, r *http.Request, accept func(done func(protocol.Accepted, error))) error {
	a, err := await(r, accept)
	if err != nil {
		return err
	}
	return write(w, http.StatusAccepted, a)
}

// await waits for the one call of done, as long as the client does.
func await[T any](r *http.Request, begin func(done func(T, error))) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	begin(func(v T, err error) { answers <- answer{v, err} })
	select {
	case a := <-answers:
		return a.value, a.err
	case <-r.Context().Done():
		var none T
		return none, r.Context().Err()
	}
}

const (
	defaultPage = 50
	maxPage     = 200
)

// getMessages pages the history forward (after) or backward (before); either way a page
// is in order, and its first or last seq is where the next one goes on.
func (s *server) getMessages(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	conversation := r.PathValue("id")
	if err := chat.CheckConversationID("conversation", conversation); err != nil {
		return err
	}
	read, field, lowest := s.deps.History.Messages, "after", int64(0)
	if r.URL.Query().Has("before") {
		if r.URL.Query().Has("after") {
			return protocol.NewError(protocol.CodeInvalidArgument, "before", "before and after cannot both be given")
		}
		read, field, lowest = s.deps.History.MessagesBefore, "before", 1
	}
	from, err := number(r, field, lowest, lowest, 1<<62)
	if err != nil {
		return err
	}
	limit, err := number(r, "limit", defaultPage, 1, maxPage)
	if err != nil {
		return err
	}
	list, err := read(r.Context(), id.User.ID, conversation, from, int(limit))
	if errors.Is(err, chat.ErrNotFound) {
		return chat.NoConversation()
	}
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, map[string]any{"messages": list, "epoch": s.deps.History.Epoch()})
}

// number reads a query parameter; one above the highest is cut to it.
func number(r *http.Request, name string, fallback, lowest, highest int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < lowest {
		return 0, protocol.NewError(protocol.CodeInvalidArgument, name, fmt.Sprintf("%s must be a number of at least %d", name, lowest))
	}
	return min(n, highest), nil
}

func (s *server) getSocket(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	return s.deps.Sockets.Upgrade(w, r, session.Who{
		User: id.User, Expires: id.ExpiresAt, Group: s.traffic(r),
		Baggage: baggage.FromContext(r.Context()), Upgrade: trace.SpanContextFromContext(r.Context()),
	})
}

// now is the time as entries have it.
func (s *server) now() time.Time { return s.deps.Now().UTC().Truncate(time.Microsecond) }

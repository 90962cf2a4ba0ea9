package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/session"
)

// conversation is a conversation on the wire; members are names.
type conversation struct {
	ID      string   `json:"id"`
	Members []string `json:"members"`
	LastSeq int64    `json:"last_seq"`
}

func conversationOf(c chat.Conversation) conversation {
	out := conversation{ID: c.ID, LastSeq: c.LastSeq, Members: make([]string, 0, len(c.Members))}
	for _, m := range c.Members {
		out.Members = append(out.Members, m.Name)
	}
	return out
}

func (s *server) postConversation(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	var in struct {
		With string `json:"with"`
	}
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	if err := chat.CheckName("with", in.With); err != nil {
		return err
	}
	if in.With == id.User.Name {
		return protocol.NewError(protocol.CodeInvalidArgument, "with", "with must be someone else")
	}
	other, err := s.deps.Conversations.User(r.Context(), in.With)
	if errors.Is(err, chat.ErrNotFound) {
		return protocol.NewError(protocol.CodeNotFound, "with", "there is no such user")
	}
	if err != nil {
		return err
	}
	fresh, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("new conversation id: %w", err)
	}
	c, err := s.deps.Conversations.Direct(r.Context(), fresh.String(), id.User, other, s.cfg.Conversations, s.deps.Now())
	switch {
	case errors.Is(err, chat.ErrLimit):
		return protocol.NewError(protocol.CodePermissionDenied, "with", "one of you has too many conversations")
	case errors.Is(err, chat.ErrUnstorable): // the token's user is not in this database
		return protocol.NewError(protocol.CodeUnauthenticated, "", "your user does not exist any more")
	case err != nil:
		return err
	}
	return write(w, http.StatusOK, conversationOf(c))
}

func (s *server) getConversations(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	list, err := s.deps.Conversations.Conversations(r.Context(), id.User.ID)
	if err != nil {
		return err
	}
	out := make([]conversation, 0, len(list))
	for _, c := range list {
		out = append(out, conversationOf(c))
	}
	return write(w, http.StatusOK, map[string]any{"conversations": out})
}

func (s *server) postMessage(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	var in struct {
		ClientID string `json:"client_id"`
		Text     string `json:"text"`
	}
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	type answer struct {
		accepted protocol.Accepted
		err      error
	}
	answers := make(chan answer, 1)
	m := protocol.Send{Conversation: r.PathValue("id"), ClientID: in.ClientID, Text: in.Text}
	s.deps.Acceptor.Accept(r.Context(), id.User, m, traceID(r), func(a protocol.Accepted, err error) { answers <- answer{a, err} })
	select {
	case a := <-answers:
		if a.err != nil {
			return a.err
		}
		return write(w, http.StatusAccepted, a.accepted)
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

const (
	defaultPage = 50
	maxPage     = 200
)

func (s *server) getMessages(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	conversation := r.PathValue("id")
	if err := chat.CheckConversationID("conversation", conversation); err != nil {
		return err
	}
	after, err := number(r, "after", 0, 0, 1<<62)
	if err != nil {
		return err
	}
	limit, err := number(r, "limit", defaultPage, 1, maxPage)
	if err != nil {
		return err
	}
	if err := s.deps.Acceptor.Member(r.Context(), conversation, id.User.ID); err != nil {
		return err
	}
	list, err := s.deps.History.Messages(r.Context(), conversation, after, int(limit))
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

package api

import (
	"errors"
	"net/http"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// putReceipt answers when the positions are durable, with those that hold then.
func (s *server) putReceipt(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	var in struct {
		Read      int64 `json:"read"`
		Delivered int64 `json:"delivered"`
	}
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	receipt, err := await(r, func(done func(protocol.Receipt, error)) {
		s.deps.Signals.Mark(r.Context(), id.User, protocol.Mark{Conversation: r.PathValue("id"), Read: in.Read, Delivered: in.Delivered}, done)
	})
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, receipt)
}

func (s *server) putMute(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	var in struct {
		Muted *bool `json:"muted"`
	}
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	if in.Muted == nil {
		return protocol.NewError(protocol.CodeInvalidArgument, "muted", "muted must be true or false")
	}
	conversation := r.PathValue("id")
	if err := chat.CheckConversationID("conversation", conversation); err != nil {
		return err
	}
	err := s.deps.Conversations.Mute(r.Context(), id.User.ID, conversation, *in.Muted)
	if errors.Is(err, chat.ErrNotFound) {
		return chat.NoConversation()
	}
	if err != nil {
		return err
	}
	return s.getConversation(w, r, id)
}

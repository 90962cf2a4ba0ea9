package api

import (
	"context"
	"errors"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
)

func (s *service) SendMessage(ctx context.Context, in *chatv1.SendMessageRequest) (*chatv1.SendMessageResponse, error) {
	a, err := s.accepted(ctx, func(done func(protocol.Accepted, error)) {
		s.deps.Acceptor.Accept(ctx, caller(ctx).User, wire.SendOf(in), traceID(ctx), done)
	})
	return &chatv1.SendMessageResponse{Accepted: a}, err
}

func (s *service) EditMessage(ctx context.Context, in *chatv1.EditMessageRequest) (*chatv1.EditMessageResponse, error) {
	if err := checkSeq(in.GetSeq()); err != nil {
		return nil, err
	}
	a, err := s.accepted(ctx, func(done func(protocol.Accepted, error)) {
		s.deps.Acceptor.Edit(ctx, caller(ctx).User, wire.EditOf(in), traceID(ctx), done)
	})
	return &chatv1.EditMessageResponse{Accepted: a}, err
}

func (s *service) RecallMessage(ctx context.Context, in *chatv1.RecallMessageRequest) (*chatv1.RecallMessageResponse, error) {
	if err := checkSeq(in.GetSeq()); err != nil {
		return nil, err
	}
	a, err := s.accepted(ctx, func(done func(protocol.Accepted, error)) {
		s.deps.Acceptor.Recall(ctx, caller(ctx).User, wire.RecallOf(in), traceID(ctx), done)
	})
	return &chatv1.RecallMessageResponse{Accepted: a}, err
}

func (s *service) AddReaction(ctx context.Context, in *chatv1.AddReactionRequest) (*chatv1.AddReactionResponse, error) {
	a, err := s.accepted(ctx, func(done func(protocol.Accepted, error)) {
		s.deps.Acceptor.React(ctx, caller(ctx).User, wire.ReactOf(in), traceID(ctx), done)
	})
	return &chatv1.AddReactionResponse{Accepted: a}, err
}

func (s *service) RemoveReaction(ctx context.Context, in *chatv1.RemoveReactionRequest) (*chatv1.RemoveReactionResponse, error) {
	a, err := s.accepted(ctx, func(done func(protocol.Accepted, error)) {
		s.deps.Acceptor.Unreact(ctx, caller(ctx).User, wire.ReactOf(in), traceID(ctx), done)
	})
	return &chatv1.RemoveReactionResponse{Accepted: a}, err
}

func checkSeq(seq int64) error {
	if seq < 1 {
		return protocol.NewError(protocol.CodeInvalidArgument, "seq", "seq must be that of a message")
	}
	return nil
}

// ListMessages pages the history forward (after) or backward (before); either way a page
// is in order, and its first or last seq is where the next one goes on.
func (s *service) ListMessages(ctx context.Context, in *chatv1.ListMessagesRequest) (*chatv1.ListMessagesResponse, error) {
	conversation := in.GetConversation()
	if err := chat.CheckConversationID("conversation", conversation); err != nil {
		return nil, err
	}
	limit, err := limitOf(in.Limit, defaultPage, maxPage)
	if err != nil {
		return nil, err
	}
	read, from := s.deps.History.Messages, in.GetAfter()
	switch {
	case in.Before != nil && in.After != nil:
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "before", "before and after cannot both be given")
	case in.Before != nil && in.GetBefore() < 1:
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "before", "before must be a number of at least 1")
	case in.Before != nil:
		read, from = s.deps.History.MessagesBefore, in.GetBefore()
	case from < 0:
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "after", "after must be a number of at least 0")
	}
	list, err := read(ctx, caller(ctx).User.ID, conversation, min(from, 1<<62), limit)
	if errors.Is(err, chat.ErrNotFound) {
		return nil, chat.NoConversation()
	}
	if err != nil {
		return nil, err
	}
	out := &chatv1.ListMessagesResponse{Epoch: s.deps.History.Epoch()}
	for _, m := range list {
		out.Messages = append(out.Messages, wire.Message(m))
	}
	return out, nil
}

// Mark answers when the positions are durable, with those that hold then.
func (s *service) Mark(ctx context.Context, in *chatv1.MarkRequest) (*chatv1.MarkResponse, error) {
	receipt, err := await(ctx, func(done func(protocol.Receipt, error)) {
		s.deps.Signals.Mark(ctx, caller(ctx).User, wire.MarkOf(in), done)
	})
	if err != nil {
		return nil, err
	}
	return &chatv1.MarkResponse{Receipt: wire.Receipt(receipt)}, nil
}

func (s *service) SendTyping(ctx context.Context, in *chatv1.SendTypingRequest) (*chatv1.SendTypingResponse, error) {
	if err := s.deps.Signals.Typing(ctx, caller(ctx).User, in.GetConversation()); err != nil {
		return nil, err
	}
	return &chatv1.SendTypingResponse{}, nil
}

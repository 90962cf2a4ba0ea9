package api

import (
	"context"
	"errors"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
)

// maxBlocks is how many others a user may block.
const maxBlocks = 10_000

// Block keeps a user from sending to the caller in their direct conversation and from
// adding it to groups.
func (s *service) Block(ctx context.Context, in *chatv1.BlockRequest) (*chatv1.BlockResponse, error) {
	u, err := s.named(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	me := caller(ctx).User.ID
	if u.ID == me {
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "name", "name must be someone else")
	}
	ended, err := s.deps.Blocks.Block(ctx, me, u.ID, maxBlocks, s.now())
	if err != nil {
		if errors.Is(err, chat.ErrLimit) {
			return nil, protocol.NewError(protocol.CodePermissionDenied, "name", "you block too many users")
		}
		return nil, creation(err, "name")
	}
	if ended {
		s.deps.Friends.Tell(caller(ctx).User, u, chat.Strangers)
	}
	return &chatv1.BlockResponse{Name: u.Name}, nil
}

func (s *service) Unblock(ctx context.Context, in *chatv1.UnblockRequest) (*chatv1.UnblockResponse, error) {
	u, err := s.named(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	if err := s.deps.Blocks.Unblock(ctx, caller(ctx).User.ID, u.ID); err != nil {
		return nil, err
	}
	return &chatv1.UnblockResponse{}, nil
}

func (s *service) ListBlocks(ctx context.Context, in *chatv1.ListBlocksRequest) (*chatv1.ListBlocksResponse, error) {
	after, limit, err := page(in.GetAfter(), in.Limit)
	if err != nil {
		return nil, err
	}
	list, err := s.deps.Blocks.Blocks(ctx, caller(ctx).User.ID, after, limit)
	if err != nil {
		return nil, err
	}
	out := &chatv1.ListBlocksResponse{Next: nextOf(len(list), limit, func() string { return list[len(list)-1].ID })}
	for _, u := range list {
		out.Names = append(out.Names, u.Name)
	}
	return out, nil
}

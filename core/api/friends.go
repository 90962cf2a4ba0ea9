package api

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
)

// Friends is who is a friend of whom; see core/friend.
type Friends interface {
	Act(ctx context.Context, from, other chat.User, act chat.FriendAct) (chat.FriendState, error)
	// Tell tells both users' devices of a state that is written already.
	Tell(from, other chat.User, state chat.FriendState)
	// List is a page in the order of ids, after one of them.
	List(ctx context.Context, userID string, state chat.FriendState, after string, limit int) ([]chat.Friend, error)
}

// befriend does an act about a user.
func (s *service) befriend(ctx context.Context, name string, act chat.FriendAct) (other, state string, err error) {
	u, err := s.named(ctx, name)
	if err != nil {
		return "", "", err
	}
	now, err := s.deps.Friends.Act(ctx, caller(ctx).User, u, act)
	if errors.Is(err, chat.ErrUnstorable) {
		err = creation(err, "name")
	}
	return u.Name, string(now), err
}

func (s *service) RequestFriend(ctx context.Context, in *chatv1.RequestFriendRequest) (*chatv1.RequestFriendResponse, error) {
	name, state, err := s.befriend(ctx, in.GetName(), chat.AskFriend)
	return &chatv1.RequestFriendResponse{Name: name, State: state}, err
}

func (s *service) AcceptFriend(ctx context.Context, in *chatv1.AcceptFriendRequest) (*chatv1.AcceptFriendResponse, error) {
	name, state, err := s.befriend(ctx, in.GetName(), chat.AcceptFriend)
	return &chatv1.AcceptFriendResponse{Name: name, State: state}, err
}

func (s *service) EndFriend(ctx context.Context, in *chatv1.EndFriendRequest) (*chatv1.EndFriendResponse, error) {
	_, _, err := s.befriend(ctx, in.GetName(), chat.EndFriend)
	return &chatv1.EndFriendResponse{}, err
}

func (s *service) ListFriends(ctx context.Context, in *chatv1.ListFriendsRequest) (*chatv1.ListFriendsResponse, error) {
	state := chat.Friends
	if in.GetState() != "" {
		state = chat.FriendState(in.GetState())
	}
	if state != chat.Friends && state != chat.Incoming && state != chat.Outgoing {
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "state", "state must be friend, incoming or outgoing")
	}
	after, limit, err := page(in.GetAfter(), in.Limit)
	if err != nil {
		return nil, err
	}
	list, err := s.deps.Friends.List(ctx, caller(ctx).User.ID, state, after, limit)
	if err != nil {
		return nil, err
	}
	out := &chatv1.ListFriendsResponse{Next: nextOf(len(list), limit, func() string { return list[len(list)-1].ID })}
	for _, f := range list {
		out.Friends = append(out.Friends, &chatv1.Friend{Name: f.Name, State: string(f.State), Since: timestamppb.New(f.Since)})
	}
	return out, nil
}

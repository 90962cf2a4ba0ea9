package api

import (
	"context"
	"errors"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
)

func userOf(u chat.User) *chatv1.User {
	return &chatv1.User{Id: u.ID, Name: u.Name, Tenant: u.Tenant}
}

func (s *service) Register(ctx context.Context, in *chatv1.RegisterRequest) (*chatv1.RegisterResponse, error) {
	if err := s.limitAll(ctx, s.register, "register", callOf(ctx).address); err != nil {
		return nil, err
	}
	u, err := s.deps.Accounts.Register(ctx, in.GetName(), in.GetPassword(), s.traffic(ctx).Tenant)
	if err != nil {
		return nil, err
	}
	return &chatv1.RegisterResponse{User: userOf(u)}, nil
}

func (s *service) GetUser(ctx context.Context, in *chatv1.GetUserRequest) (*chatv1.GetUserResponse, error) {
	if err := chat.CheckName("name", in.GetName()); err != nil {
		return nil, err
	}
	p, err := s.deps.People.Person(ctx, in.GetName())
	if errors.Is(err, chat.ErrNotFound) {
		return nil, protocol.NewError(protocol.CodeNotFound, "name", "there is no such user")
	}
	if err != nil {
		return nil, err
	}
	out := personOf(p)
	if n, err := s.deps.Presence.Online(ctx, p.ID); err == nil {
		online := n > 0
		out.Online = &online
	}
	return &chatv1.GetUserResponse{User: out}, nil
}

func personOf(p chat.Person) *chatv1.User {
	out := userOf(p.User)
	for _, part := range []struct {
		to   **string
		text string
	}{{&out.DisplayName, p.DisplayName}, {&out.Avatar, p.Avatar}, {&out.About, p.About}} {
		if part.text != "" {
			*part.to = &part.text
		}
	}
	return out
}

// UpdateProfile changes those parts of the caller's profile that are given.
func (s *service) UpdateProfile(ctx context.Context, in *chatv1.UpdateProfileRequest) (*chatv1.UpdateProfileResponse, error) {
	change := chat.ProfileChange{DisplayName: in.DisplayName, Avatar: in.Avatar, About: in.About}
	if err := change.Check(); err != nil {
		return nil, err
	}
	p, err := s.deps.People.SetProfile(ctx, caller(ctx).User.ID, change)
	if errors.Is(err, chat.ErrNotFound) {
		return nil, protocol.NewError(protocol.CodeUnauthenticated, "", "your user does not exist any more")
	}
	if err != nil {
		return nil, err
	}
	return &chatv1.UpdateProfileResponse{User: personOf(p)}, nil
}

// named is the user with a name that came in the field name.
func (s *service) named(ctx context.Context, name string) (chat.User, error) {
	if err := chat.CheckName("name", name); err != nil {
		return chat.User{}, err
	}
	u, err := s.deps.Conversations.User(ctx, name)
	if errors.Is(err, chat.ErrNotFound) {
		return u, protocol.NewError(protocol.CodeNotFound, "name", "there is no such user")
	}
	return u, err
}

func (s *service) GetMe(ctx context.Context, _ *chatv1.GetMeRequest) (*chatv1.GetMeResponse, error) {
	g := s.traffic(ctx)
	return &chatv1.GetMeResponse{
		User: userOf(caller(ctx).User), Group: string(g.ID()), Color: g.Color.String(), Env: g.Env, Tenant: g.Tenant,
		Pool: s.deps.Pool, Node: s.deps.Node, TraceId: traceID(ctx),
	}, nil
}

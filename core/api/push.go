package api

import (
	"context"
	"errors"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
)

// Devices is where is kept how devices are notified.
type Devices interface {
	// SetPush answers chat.ErrNotFound where there is no such session.
	SetPush(ctx context.Context, session, platform, token string) error
}

// SetPush says how this device is notified while its user is not connected.
func (s *service) SetPush(ctx context.Context, in *chatv1.SetPushRequest) (*chatv1.SetPushResponse, error) {
	if in.GetToken() == "" {
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "token", "token must not be empty")
	}
	return &chatv1.SetPushResponse{}, s.setPush(ctx, in.GetPlatform(), in.GetToken())
}

// DeletePush takes back what SetPush has said.
func (s *service) DeletePush(ctx context.Context, _ *chatv1.DeletePushRequest) (*chatv1.DeletePushResponse, error) {
	return &chatv1.DeletePushResponse{}, s.setPush(ctx, "", "")
}

func (s *service) setPush(ctx context.Context, platform, token string) error {
	if err := chat.CheckPush(platform, token); err != nil {
		return err
	}
	err := s.deps.Devices.SetPush(ctx, caller(ctx).Session, platform, token)
	if errors.Is(err, chat.ErrNotFound) {
		return protocol.NewError(protocol.CodeUnauthenticated, "", "session has ended: log in again")
	}
	return err
}

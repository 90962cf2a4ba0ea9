package client

import (
	"context"
	"net/http"
)

const pushPath = "/v1/sessions/current/push"

// SetPush says how this device is notified of messages while the user is not connected:
// token is the platform's (such as fcm or apns). It is taken away from other sessions.
func (u *User) SetPush(ctx context.Context, platform, token string) (Served, error) {
	return u.do(ctx, call{op: "set push", method: http.MethodPut, path: pushPath, in: map[string]string{"platform": platform, "token": token}})
}

// UnsetPush ends it; so does a log-out.
func (u *User) UnsetPush(ctx context.Context) (Served, error) {
	return u.do(ctx, call{op: "unset push", method: http.MethodDelete, path: pushPath})
}

package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Friend is how the user stands to another one: outgoing (a request), incoming or friend.
type Friend struct {
	Name  string    `json:"name"`
	State string    `json:"state"`
	Since time.Time `json:"since"`
}

// FriendPage is a part of a list of friends or requests; Next is what the next page comes
// after, empty on the last one.
type FriendPage struct {
	Friends []Friend `json:"friends"`
	Next    string   `json:"next"`
}

// AskFriend asks another user to be a friend, or accepts where that one has asked already.
func (u *User) AskFriend(ctx context.Context, name string) (out Friend, served Served, err error) {
	served, err = u.do(ctx, call{op: "ask friend", method: http.MethodPut, path: friendPath(name), out: &out})
	return out, served, err
}

// AcceptFriend accepts another user's request; without one the answer is not_found.
func (u *User) AcceptFriend(ctx context.Context, name string) (out Friend, served Served, err error) {
	served, err = u.do(ctx, call{op: "accept friend", method: http.MethodPost, path: friendPath(name) + "/accept", key: name, out: &out})
	return out, served, err
}

// EndFriend declines or withdraws a request, or ends a friendship, whichever there is.
func (u *User) EndFriend(ctx context.Context, name string) (Served, error) {
	return u.do(ctx, call{op: "end friend", method: http.MethodDelete, path: friendPath(name)})
}

// Friends lists up to limit of those in a state after Next of the page before.
func (u *User) Friends(ctx context.Context, state, after string, limit int) (out FriendPage, served Served, err error) {
	q := url.Values{"state": {state}, "after": {after}, "limit": {strconv.Itoa(limit)}}
	served, err = u.do(ctx, call{op: "friends", method: http.MethodGet, path: "/v1/friends?" + q.Encode(), out: &out})
	return out, served, err
}

func friendPath(name string) string { return "/v1/friends/" + url.PathEscape(name) }

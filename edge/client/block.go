package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// Names is a page of users. Next is what the next page comes after; empty on the last one.
type Names struct {
	Names []string `json:"names"`
	Next  string   `json:"next"`
}

// Block keeps another user from sending to this one in their direct conversation, and
// from adding it to groups. It holds when Block returns without an error.
func (u *User) Block(ctx context.Context, name string) (Served, error) {
	return u.do(ctx, call{op: "block", method: http.MethodPut, path: "/v1/blocks/" + url.PathEscape(name)})
}

// Unblock ends it.
func (u *User) Unblock(ctx context.Context, name string) (Served, error) {
	return u.do(ctx, call{op: "unblock", method: http.MethodDelete, path: "/v1/blocks/" + url.PathEscape(name)})
}

// Blocks lists up to limit blocked users after Next of the page before; empty for the first.
func (u *User) Blocks(ctx context.Context, after string, limit int) (Names, Served, error) {
	var out Names
	q := url.Values{"after": {after}, "limit": {strconv.Itoa(limit)}}
	served, err := u.do(ctx, call{op: "blocks", method: http.MethodGet, path: "/v1/blocks?" + q.Encode(), out: &out})
	return out, served, err
}

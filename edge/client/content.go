package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// Upload uploads a file, which Send may then name by its id. Content is read as it goes,
// so it is tried once, and there is no time-out but ctx's.
func (u *User) Upload(ctx context.Context, name string, content io.Reader) (protocol.File, Served, error) {
	body, pipe := io.Pipe()
	form := multipart.NewWriter(pipe)
	go func() { // ends with the request, which closes the body
		part, err := form.CreateFormFile("file", name)
		if err == nil {
			_, err = io.Copy(part, content)
		}
		pipe.CloseWithError(errors.Join(err, form.Close()))
	}()
	var f protocol.File
	start := time.Now()
	served, err := u.post(ctx, "/v1/files", form.FormDataContentType(), body, &f)
	u.c.observe(Attempt{Op: "upload", Start: start, Took: time.Since(start), Served: served, Err: err})
	if err != nil {
		return f, served, fmt.Errorf("upload: %w", err)
	}
	return f, served, nil
}

func (u *User) post(ctx context.Context, path, kind string, body io.ReadCloser, out any) (Served, error) {
	token, err := u.Access(ctx)
	if err != nil {
		return Served{}, errors.Join(err, body.Close())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.c.base.String()+path, body)
	if err != nil {
		return Served{}, errors.Join(fmt.Errorf("build request: %w", err), body.Close())
	}
	req.Header = u.c.header(token)
	req.Header.Set("Content-Type", kind)
	req.Host = u.c.cfg.Host
	resp, err := u.c.http.Do(req)
	if err != nil {
		return Served{}, fmt.Errorf("request: %w", err)
	}
	defer resp.Body.Close()
	served := servedBy(resp)
	b, err := io.ReadAll(io.LimitReader(resp.Body, u.c.cfg.MaxBytes))
	if err != nil {
		return served, fmt.Errorf("read response: %w", err)
	}
	if resp.StatusCode >= 300 {
		refusal, _ := failure(resp.StatusCode, b)
		return served, refusal
	}
	if err := json.Unmarshal(b, out); err != nil {
		return served, fmt.Errorf("decode response: %w", err)
	}
	return served, nil
}

// File gives what a file is and an address to download it by, which may be relative to
// the edge's own.
func (u *User) File(ctx context.Context, id string) (protocol.FileLink, Served, error) {
	var f protocol.FileLink
	served, err := u.do(ctx, call{op: "file", method: http.MethodGet, path: "/v1/files/" + url.PathEscape(id), out: &f})
	return f, served, err
}

// Search is what to look for; see docs/chat.md.
type Search struct {
	Text          string
	Conversation  string    // empty: all
	Sender        string    // a user name; empty: all
	After, Before time.Time // zero: any
	Limit         int       // 0: 20
	Cursor        string    // the Next of the page before
}

// Search finds messages, newest first.
func (u *User) Search(ctx context.Context, s Search) (protocol.FoundPage, Served, error) {
	q := url.Values{"q": {s.Text}}
	for key, value := range map[string]string{"conversation": s.Conversation, "sender": s.Sender, "cursor": s.Cursor} {
		if value != "" {
			q.Set(key, value)
		}
	}
	for key, t := range map[string]time.Time{"after": s.After, "before": s.Before} {
		if !t.IsZero() {
			q.Set(key, t.Format(time.RFC3339Nano))
		}
	}
	if s.Limit != 0 {
		q.Set("limit", strconv.Itoa(s.Limit))
	}
	var p protocol.FoundPage
	served, err := u.do(ctx, call{op: "search", method: http.MethodGet, path: "/v1/search?" + q.Encode(), out: &p})
	return p, served, err
}

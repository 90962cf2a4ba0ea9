package core_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/api"
	"github.com/tracegate/tracegate/core/protocol"
)

// FuzzREST sends any body to any operation of a whole core process, as a user with a
// conversation: the answer is a success, or an error of the closed list that is not
// internal, says what is wrong, and names a field where the body is to blame.
func FuzzREST(f *testing.F) {
	w := newWorld(f)
	cfg := w.config("baseline")
	much := api.Rate{PerSecond: 1e9, Burst: 1e9}
	cfg.API.Register, cfg.API.LoginAddress, cfg.API.LoginName, cfg.API.User, cfg.API.Upload, cfg.API.Search = much, much, much, much, much, much
	n := w.start(cfg)
	ann := n.person("ann")
	n.person("bob")
	id := n.direct(ann, "bob")
	group := n.group(ann, "room", "bob")
	must(f, n.send(ann, id, "first"))
	for _, c := range [][3]string{
		{"POST", "/v1/users", `{"name":"cid","password":"12345678"}`},
		{"POST", "/v1/sessions", `{"name":"ann","password":"12345678","device":"x"}`},
		{"POST", "/v1/sessions/refresh", `{"refresh_token":"x"}`},
		{"PATCH", "/v1/me", `{"display_name":"Ann","about":"\u0000"}`},
		{"PUT", "/v1/me/password", `{"old":"1","new":"2"}`},
		{"PUT", "/v1/me/push", `{"platform":"fcm","token":"t"}`},
		{"POST", "/v1/conversations", `{"with":"bob"}`},
		{"POST", "/v1/conversations", `{"name":"room","members":["bob"],"client_id":"1"}`},
		{"PATCH", "/v1/conversations/{group}", `{"name":"hall"}`},
		{"POST", "/v1/conversations/{group}/join", `{"client_id":"1"}`},
		{"POST", "/v1/conversations/{group}/members", `{"members":["bob","nobody"]}`},
		{"PUT", "/v1/conversations/{group}/members/bob", `{"role":"admin"}`},
		{"DELETE", "/v1/conversations/{group}/members/bob?client_id=%00", ``},
		{"GET", "/v1/conversations/{group}/members?limit=-1&after=%ff", ``},
		{"POST", "/v1/conversations/{direct}/messages", `{"client_id":"1","text":"x","reply_to":1}`},
		{"PATCH", "/v1/conversations/{direct}/messages/1", `{"client_id":"2","text":"y"}`},
		{"DELETE", "/v1/conversations/{direct}/messages/9223372036854775807", ``},
		{"GET", "/v1/conversations/{direct}/messages?after=-1&before=1&limit=1e9", ``},
		{"PUT", "/v1/conversations/{direct}/receipt", `{"read":1,"delivered":2}`},
		{"PUT", "/v1/conversations/{direct}/mute", `{"muted":true}`},
		{"POST", "/v1/conversations/{direct}/typing", `{}`},
		{"PUT", "/v1/blocks/bob", ``},
		{"PUT", "/v1/friends/bob", `{}`},
		{"GET", "/v1/search?q=%22&limit=x", ``},
		{"0", "..", `0`},
		{"POST", "/v1/files", "--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nx\r\n--b--"},
	} {
		f.Add(c[0], c[1], []byte(c[2]))
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // it leads out of /v1
	ids := strings.NewReplacer("{direct}", id, "{group}", group)                                                         // which differ from run to run
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, n.url+"/v1/"+ids.Replace(strings.TrimPrefix(path, "/v1/")), bytes.NewReader(body))
		if err != nil || strings.HasPrefix(req.URL.Path, "/v1/ws") {
			return // no request, and what comes of a socket is FuzzCommand's
		}
		req.Header.Set("Authorization", "Bearer "+ann)
		req.Header.Set("Content-Type", "application/json")
		if bytes.HasPrefix(body, []byte("--b")) {
			req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		}
		resp, err := client.Do(req)
		if err != nil {
			return // Go's client refuses what is no method or path
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode < 400 {
			return
		}
		if resp.StatusCode == http.StatusUnauthorized {
			here := *n
			here.t = t
			ann = here.login("ann") // a call before has ended the session
		}
		if resp.StatusCode == http.StatusBadRequest && !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
			return // net/http's own, before core sees it
		}
		var e protocol.Error
		if err := json.Unmarshal(text, &e); method != http.MethodHead && (err != nil || e.Code == "" || e.Message == "") {
			t.Fatalf("%s %q %q: %d %q", method, path, body, resp.StatusCode, text)
		}
		if resp.StatusCode == http.StatusInternalServerError || e.Code == protocol.CodeInternal {
			t.Fatalf("%s %q %q: %d %q", method, path, body, resp.StatusCode, text)
		}
	})
}

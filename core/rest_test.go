package core_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
)

// traffic is the headers that the edge's filter sets.
func traffic(g group.Group) http.Header {
	return http.Header{
		"X-Traffic-Group": {string(g.ID())},
		"Traceparent":     {"00-" + g.Color.String() + "0123456789abcdef01234567-0123456789abcdef-03"},
		"Baggage":         {"traffic.env=" + g.Env + ",traffic.tenant=" + g.Tenant},
	}
}

// badRequest is a request that is refused, and how.
type badRequest struct {
	name, method, path, token, body string
	code                            protocol.Code
	field                           string
}

// badRequests are about a direct conversation of ann and bob; docs/errors.md has them too.
func badRequests(id, ann, eve string) []badRequest {
	messages := "/v1/conversations/" + id + "/messages"
	big := `{"client_id":"1","text":"` + strings.Repeat("x", 4097) + `"}`
	huge := `{"client_id":"1","text":"` + strings.Repeat("x", 65<<10) + `"}`
	return []badRequest{
		{"no token", "GET", "/v1/me", "", "", protocol.CodeUnauthenticated, ""},
		{"garbage token", "GET", "/v1/me", "a.b.c", "", protocol.CodeUnauthenticated, ""},
		{"no such route", "GET", "/v1/nothing", ann, "", protocol.CodeNotFound, ""},
		{"wrong method", "PUT", "/v1/users", ann, "{}", protocol.CodeNotFound, ""},
		{"taken name", "POST", "/v1/users", "", `{"name":"ann","password":"12345678"}`, protocol.CodeAlreadyExists, "name"},
		{"bad name", "POST", "/v1/users", "", `{"name":"A","password":"12345678"}`, protocol.CodeInvalidArgument, "name"},
		{"short password", "POST", "/v1/users", "", `{"name":"cid","password":"1"}`, protocol.CodeInvalidArgument, "password"},
		{"no json", "POST", "/v1/users", "", `name`, protocol.CodeInvalidArgument, "body"},
		{"no body", "POST", "/v1/users", "", ``, protocol.CodeInvalidArgument, "body"},
		{"two values", "POST", "/v1/users", "", `{}{}`, protocol.CodeInvalidArgument, "body"},
		{"too deep", "POST", "/v1/users", "", `{"name":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`, protocol.CodeInvalidArgument, "body"},
		{"field without a name", "POST", "/v1/users", "", `{"":1}`, protocol.CodeInvalidArgument, "body"},
		{"unknown field", "POST", "/v1/users", "", `{"nick":"cid"}`, protocol.CodeInvalidArgument, "nick"},
		{"wrong type", "POST", "/v1/users", "", `{"name":1}`, protocol.CodeInvalidArgument, "name"},
		{"not UTF-8", "POST", "/v1/users", "", "{\"name\":\"\xff\"}", protocol.CodeInvalidArgument, "body"},
		{"wrong password", "POST", "/v1/sessions", "", `{"name":"ann","password":"87654321"}`, protocol.CodeUnauthenticated, ""},
		{"unknown user", "POST", "/v1/sessions", "", `{"name":"nobody","password":"87654321"}`, protocol.CodeUnauthenticated, ""},
		{"look up nobody", "GET", "/v1/users/nobody", ann, "", protocol.CodeNotFound, "name"},
		{"look up no name", "GET", "/v1/users/N", ann, "", protocol.CodeInvalidArgument, "name"},
		{"talk to nobody", "POST", "/v1/conversations", ann, `{"with":"nobody"}`, protocol.CodeNotFound, "with"},
		{"talk to oneself", "POST", "/v1/conversations", ann, `{"with":"ann"}`, protocol.CodeInvalidArgument, "with"},
		{"send without text", "POST", messages, ann, `{"client_id":"1"}`, protocol.CodeInvalidArgument, "text"},
		{"send without client id", "POST", messages, ann, `{"text":"x"}`, protocol.CodeInvalidArgument, "client_id"},
		{"send too much", "POST", messages, ann, big, protocol.CodeTooLarge, "text"},
		{"send far too much", "POST", messages, ann, huge, protocol.CodeTooLarge, "body"},
		{"send to other people", "POST", messages, eve, `{"client_id":"1","text":"x"}`, protocol.CodeNotFound, "conversation"},
		{"read other people", "GET", messages, eve, "", protocol.CodeNotFound, "conversation"},
		{"read nothing", "GET", "/v1/conversations/none/messages", ann, "", protocol.CodeNotFound, "conversation"},
		{"read after text", "GET", messages + "?after=x", ann, "", protocol.CodeInvalidArgument, "after"},
		{"read before the start", "GET", messages + "?after=-1", ann, "", protocol.CodeInvalidArgument, "after"},
		{"read none", "GET", messages + "?limit=0", ann, "", protocol.CodeInvalidArgument, "limit"},
		{"read both ways", "GET", messages + "?before=1&after=1", ann, "", protocol.CodeInvalidArgument, "before"},
		{"read before the first", "GET", messages + "?before=0", ann, "", protocol.CodeInvalidArgument, "before"},
		{"direct and group", "POST", "/v1/conversations", ann, `{"with":"bob","name":"x"}`, protocol.CodeInvalidArgument, "with"},
		{"group without a name", "POST", "/v1/conversations", ann, `{"members":["bob"]}`, protocol.CodeInvalidArgument, "name"},
		{"group with nobody's name", "POST", "/v1/conversations", ann, `{"name":"x","members":["B"]}`, protocol.CodeInvalidArgument, "members"},
		{"group with nobody", "POST", "/v1/conversations", ann, `{"name":"x","members":["nobody"]}`, protocol.CodeNotFound, "members"},
		{"group with too many", "POST", "/v1/conversations", ann, `{"name":"x","members":["` + strings.Repeat(`bob","`, 100) + `bob"]}`, protocol.CodeTooLarge, "members"},
		{"group with a bad client id", "POST", "/v1/conversations", ann, `{"name":"x","client_id":"a b"}`, protocol.CodeInvalidArgument, "client_id"},
		{"look at other people's", "GET", "/v1/conversations/" + id, eve, "", protocol.CodeNotFound, "conversation"},
		{"rename a direct one", "PATCH", "/v1/conversations/" + id, ann, `{"name":"x"}`, protocol.CodeInvalidArgument, "conversation"},
		{"add to a direct one", "POST", "/v1/conversations/" + id + "/members", ann, `{"members":["eve"]}`, protocol.CodeInvalidArgument, "conversation"},
		{"add to other people's", "POST", "/v1/conversations/" + id + "/members", eve, `{"members":["eve"]}`, protocol.CodeNotFound, "conversation"},
		{"add nobody", "POST", "/v1/conversations/" + id + "/members", ann, `{}`, protocol.CodeInvalidArgument, "members"},
		{"list other people's members", "GET", "/v1/conversations/" + id + "/members", eve, "", protocol.CodeNotFound, "conversation"},
		{"conversations after nothing", "GET", "/v1/conversations?after=a%20b", ann, "", protocol.CodeInvalidArgument, "after"},
		{"no conversations", "GET", "/v1/conversations?limit=0", ann, "", protocol.CodeInvalidArgument, "limit"},
		{"members after nobody", "GET", "/v1/conversations/" + id + "/members?after=a%20b", ann, "", protocol.CodeInvalidArgument, "after"},
		{"no such role", "PUT", "/v1/conversations/" + id + "/members/bob", ann, `{"role":"king"}`, protocol.CodeInvalidArgument, "role"},
		{"role of nobody", "PUT", "/v1/conversations/" + id + "/members/nobody", ann, `{"role":"admin"}`, protocol.CodeNotFound, "name"},
		{"open a direct one", "PATCH", "/v1/conversations/" + id, ann, `{"open":true}`, protocol.CodeInvalidArgument, "conversation"},
		{"open and rename at once", "PATCH", "/v1/conversations/" + id, ann, `{"open":true,"name":"x"}`, protocol.CodeInvalidArgument, "open"},
		{"join what is not open", "POST", "/v1/conversations/" + id + "/join", eve, "", protocol.CodeNotFound, "conversation"},
		{"join what there is not", "POST", "/v1/conversations/none/join", eve, "", protocol.CodeNotFound, "conversation"},
		{"join a direct one", "POST", "/v1/conversations/" + id + "/join", ann, `{}`, protocol.CodeInvalidArgument, "conversation"},
		{"leave a direct one", "DELETE", "/v1/conversations/" + id + "/members/ann", ann, "", protocol.CodeInvalidArgument, "conversation"},
		{"remove no name", "DELETE", "/v1/conversations/" + id + "/members/A", ann, "", protocol.CodeInvalidArgument, "name"},
		{"edit seq of text", "PATCH", messages + "/x", ann, `{"client_id":"1","text":"x"}`, protocol.CodeInvalidArgument, "seq"},
		{"edit nothing", "PATCH", messages + "/7", ann, `{"client_id":"1","text":"x"}`, protocol.CodeNotFound, "seq"},
		{"edit without text", "PATCH", messages + "/7", ann, `{"client_id":"1"}`, protocol.CodeInvalidArgument, "text"},
		{"edit of other people", "PATCH", messages + "/1", eve, `{"client_id":"1","text":"x"}`, protocol.CodeNotFound, "conversation"},
		{"recall nothing", "DELETE", messages + "/7", ann, "", protocol.CodeNotFound, "seq"},
		{"recall seq 0", "DELETE", messages + "/0", ann, "", protocol.CodeInvalidArgument, "seq"},
		{"react to nothing", "PUT", messages + "/7/reactions/%F0%9F%91%8D", ann, `{"client_id":"1"}`, protocol.CodeNotFound, "seq"},
		{"react to seq 0", "PUT", messages + "/0/reactions/%F0%9F%91%8D", ann, `{"client_id":"1"}`, protocol.CodeInvalidArgument, "seq"},
		{"react with a word", "PUT", messages + "/7/reactions/ok", ann, `{"client_id":"1"}`, protocol.CodeInvalidArgument, "emoji"},
		{"react with half a character", "PUT", messages + "/7/reactions/%F0%9F", ann, `{"client_id":"1"}`, protocol.CodeInvalidArgument, "emoji"},
		{"react without client id", "PUT", messages + "/7/reactions/%F0%9F%91%8D", ann, `{}`, protocol.CodeInvalidArgument, "client_id"},
		{"react to other people", "PUT", messages + "/1/reactions/%F0%9F%91%8D", eve, `{"client_id":"1"}`, protocol.CodeNotFound, "conversation"},
		{"take back without client id", "DELETE", messages + "/7/reactions/%F0%9F%91%8D", ann, "", protocol.CodeInvalidArgument, "client_id"},
		{"take back from nothing", "DELETE", messages + "/7/reactions/%F0%9F%91%8D?client_id=1", ann, "", protocol.CodeNotFound, "seq"},
		{"reply to nothing", "POST", messages, ann, `{"client_id":"1","text":"x","reply_to":7}`, protocol.CodeNotFound, "reply_to"},
		{"reply to less", "POST", messages, ann, `{"client_id":"1","text":"x","reply_to":-7}`, protocol.CodeInvalidArgument, "reply_to"},
		{"read nothing at all", "PUT", "/v1/conversations/" + id + "/receipt", ann, `{}`, protocol.CodeInvalidArgument, "read"},
		{"read what is not there", "PUT", "/v1/conversations/" + id + "/receipt", ann, `{"read":1}`, protocol.CodeInvalidArgument, "read"},
		{"get less than nothing", "PUT", "/v1/conversations/" + id + "/receipt", ann, `{"delivered":-1}`, protocol.CodeInvalidArgument, "delivered"},
		{"have read other people's", "PUT", "/v1/conversations/" + id + "/receipt", eve, `{"read":1}`, protocol.CodeNotFound, "conversation"},
		{"mute somehow", "PUT", "/v1/conversations/" + id + "/mute", ann, `{}`, protocol.CodeInvalidArgument, "muted"},
		{"mute other people", "PUT", "/v1/conversations/" + id + "/mute", eve, `{"muted":true}`, protocol.CodeNotFound, "conversation"},
		{"block nobody", "PUT", "/v1/blocks/nobody", ann, "", protocol.CodeNotFound, "name"},
		{"block no name", "PUT", "/v1/blocks/A", ann, "", protocol.CodeInvalidArgument, "name"},
		{"block oneself", "PUT", "/v1/blocks/ann", ann, "", protocol.CodeInvalidArgument, "name"},
		{"unblock nobody", "DELETE", "/v1/blocks/nobody", ann, "", protocol.CodeNotFound, "name"},
		{"blocks after nothing", "GET", "/v1/blocks?after=a%20b", ann, "", protocol.CodeInvalidArgument, "after"},
		{"no blocks", "GET", "/v1/blocks?limit=0", ann, "", protocol.CodeInvalidArgument, "limit"},
		{"socket without upgrade", "GET", "/v1/ws", ann, "", protocol.CodeInvalidArgument, "upgrade"},
	}
}

func TestRESTErrorsAreOfTheClosedList(t *testing.T) {
	n := newWorld(t).start0()
	ann := n.person("ann")
	n.person("bob")
	eve := n.person("eve")
	id := n.direct(ann, "bob")
	if again := n.direct(ann, "bob"); again != id {
		t.Errorf("two conversations of one pair: %s, %s", id, again)
	}
	messages := "/v1/conversations/" + id + "/messages"
	for _, c := range badRequests(id, ann, eve) {
		t.Run(c.name, func(t *testing.T) {
			err := n.raw(c.method, n.url+c.path, c.token, strings.NewReader(c.body), nil, nil)
			e, ok := errors.AsType[*protocol.Error](err)
			if !ok || e.Code != c.code || e.Field != c.field || e.Message == "" {
				t.Errorf("got %+v, %v", e, err)
			}
		})
	}
	err := n.raw("POST", n.url+messages, ann, strings.NewReader(`{"client_id":"1","text":"x"}`), http.Header{"Sec-Fetch-Site": {"cross-site"}}, nil)
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodePermissionDenied {
		t.Errorf("a page of another site sends: %v", err)
	}
	err = n.raw("POST", n.url+messages, ann, strings.NewReader(`{}`), http.Header{"Content-Type": {"text/plain"}}, nil)
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Field != "content-type" {
		t.Errorf("a form sends: %v", err)
	}
}

func TestMeShowsTheTrafficOfTheRequest(t *testing.T) {
	n := newWorld(t).start0()
	ann := n.person("ann")
	g := group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}
	for _, c := range []struct {
		name   string
		header http.Header
		want   group.Group
	}{
		{"through the filter", traffic(g), g},
		{"filter failed open", func() http.Header { h := traffic(g); h.Del("X-Traffic-Group"); return h }(), group.Group{Env: "prod", Tenant: "public"}},
		{"group is garbage", func() http.Header { h := traffic(g); h.Set("X-Traffic-Group", "ZZ"); return h }(), group.Group{Env: "prod", Tenant: "public"}},
		{"nothing", nil, group.Group{Env: "prod", Tenant: "public"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var me map[string]any
			must(t, n.raw("GET", n.url+"/v1/me", ann, nil, c.header, &me))
			want := map[string]any{
				"group": string(c.want.ID()), "color": c.want.Color.String(), "env": c.want.Env, "tenant": c.want.Tenant,
				"pool": "baseline", "node": "baseline-1",
			}
			if id, _ := me["trace_id"].(string); !strings.HasPrefix(id, c.want.Color.String()) {
				t.Errorf("trace id %q", id)
			}
			user, _ := me["user"].(map[string]any)
			if user["name"] != "ann" {
				t.Errorf("user %v", user)
			}
			delete(me, "trace_id")
			delete(me, "user")
			if diff := cmp.Diff(want, me); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHeadersAndCookie(t *testing.T) {
	n := newWorld(t).start0()
	n.person("ann")
	resp, err := http.Post(n.url+"/v1/sessions", "application/json", strings.NewReader(`{"name":"ann","password":"`+password+`"}`))
	must(t, err)
	defer resp.Body.Close()
	for header, want := range map[string]string{
		"x-traffic-pool": "baseline", "x-traffic-node": "baseline-1", "cache-control": "no-store", "x-content-type-options": "nosniff",
		"content-type": "application/json",
	} {
		if got := resp.Header.Get(header); got != want {
			t.Errorf("%s: %q", header, got)
		}
	}
	c := resp.Cookies()[0]
	if c.Name != "tracegate_session" || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Secure {
		t.Errorf("cookie %+v", c)
	}
	get, _ := http.NewRequest("GET", n.url+"/v1/me", nil)
	get.AddCookie(c)
	me, err := http.DefaultClient.Do(get)
	must(t, err)
	_ = me.Body.Close()
	if me.StatusCode != 200 {
		t.Errorf("by cookie: %d", me.StatusCode)
	}
	out, _ := http.NewRequest("DELETE", n.url+"/v1/sessions/current", nil)
	gone, err := http.DefaultClient.Do(out)
	must(t, err)
	_ = gone.Body.Close()
	if gone.StatusCode != 204 || gone.Cookies()[0].Value != "" || gone.Cookies()[0].Expires.After(time.Now()) {
		t.Errorf("logout: %d %+v", gone.StatusCode, gone.Cookies())
	}
}

func TestAPIAddressIsLimited(t *testing.T) {
	w := newWorld(t)
	cfg := w.config("baseline")
	cfg.API.Register.PerSecond, cfg.API.Register.Burst = 0.001, 2
	cfg.API.LoginName.PerSecond, cfg.API.LoginName.Burst = 0.001, 2
	n := w.start(cfg)
	n.person("ann") // one of each
	register := func(name, from string) error {
		return n.raw("POST", n.url+"/v1/users", "", strings.NewReader(`{"name":"`+name+`","password":"`+password+`"}`),
			http.Header{"X-Forwarded-For": {from}}, nil)
	}
	must(t, register("bob", "9.9.9.9, 10.0.0.1"))
	must(t, register("cid", "10.0.0.1"))
	err := register("dan", "8.8.8.8, 10.0.0.1") // what the client says before the last hop does not help it
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodeRateLimited || !e.Temporary {
		t.Errorf("third registration of an address: %v", err)
	}
	must(t, register("dan", "10.0.0.2"))
	wrong := map[string]string{"name": "ann", "password": "wrong password"}
	codes := []protocol.Code{}
	for range 3 {
		e, _ := errors.AsType[*protocol.Error](n.call("POST", "/v1/sessions", "", wrong, nil))
		codes = append(codes, e.Code)
	}
	want := []protocol.Code{protocol.CodeUnauthenticated, protocol.CodeRateLimited, protocol.CodeRateLimited}
	if diff := cmp.Diff(want, codes); diff != "" {
		t.Errorf("guessing a password: %s", diff)
	}
}

func TestAdmin(t *testing.T) {
	n := newWorld(t).start0()
	ann := n.person("ann")
	n.person("bob")
	id := n.direct(ann, "bob")
	do := func(method, path, bearer, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, n.admin+path, bytes.NewBufferString(body))
		must(t, err)
		r.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := http.DefaultClient.Do(r)
		must(t, err)
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, _ := do("GET", path, "", ""); code != 200 {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code, text := do("GET", "/metrics", "", ""); code != 200 || !strings.Contains(text, "core_sockets 0") {
		t.Errorf("metrics: %d", code)
	}
	for _, c := range [][2]string{{"POST", "/v1/fault"}, {"DELETE", "/v1/fault"}, {"GET", "/v1/sockets"}, {"POST", "/v1/collect"}} {
		if code, _ := do(c[0], c[1], "wrong", "{}"); code != 401 {
			t.Errorf("%v with a wrong token: %d", c, code)
		}
	}
	for _, body := range []string{``, `{}`, `{"latency_ms":-1,"for_ms":1}`, `{"error_ratio":2,"for_ms":1}`, `{"error_ratio":1}`, `{"error_ratio":1,"for_ms":99999999999999}`, `{"x":1}`} {
		if code, text := do("POST", "/v1/fault", token, body); code != 400 || !strings.Contains(text, "invalid_argument") {
			t.Errorf("fault %s: %d %s", body, code, text)
		}
	}
	c, _ := n.connect(ann, newSeen())
	var groups []map[string]any
	_, text := do("GET", "/v1/sockets", token, "")
	if json.Unmarshal([]byte(text), &groups) != nil || len(groups) != 1 || groups[0]["sockets"] != 1.0 {
		t.Errorf("sockets: %s", text)
	}

	if code, text := do("POST", "/v1/fault", token, `{"error_ratio":1,"latency_ms":30,"for_ms":60000}`); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	start := time.Now()
	if e, ok := errors.AsType[*protocol.Error](n.call("GET", "/v1/me", ann, nil, nil)); !ok || e.Code != protocol.CodeInternal {
		t.Errorf("no fault by REST: %v", e)
	}
	if e, ok := errors.AsType[*protocol.Error](c.send(id, "1")); !ok || e.Code != protocol.CodeInternal {
		t.Errorf("no fault by WebSocket: %v", e)
	}
	if d := time.Since(start); d < 60*time.Millisecond {
		t.Errorf("two delays took %v", d)
	}
	if code, _ := do("GET", "/healthz", "", ""); code != 200 {
		t.Error("the health check got the fault")
	}
	resp, err := http.Get(n.url + "/healthz")
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Error("the edge's health check got the fault")
	}
	if code, _ := do("DELETE", "/v1/fault", token, ""); code != 204 {
		t.Error(code)
	}
	must(t, n.call("GET", "/v1/me", ann, nil, nil))
	must(t, c.send(id, "1"))
}

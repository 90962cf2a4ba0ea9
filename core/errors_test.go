package core_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tracegate/tracegate/core/api"
	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/search"
)

var update = flag.Bool("update", false, "rewrite docs/errors.md")

const errorsDoc = "../docs/errors.md"

const errorsHead = `# Bad input, and what is answered

Each line was sent to a running core by a test (` + "`core/errors_test.go`" + `), which writes this file (` + "`go test ./core -run TestErrorsAreDocumented -update`" + `) and fails where an
answer is another one. What all transports have in common, and the closed list of codes, is in [chat.md](chat.md#transports). {id} is a conversation of ann and bob; ann asks
where nothing else is said.
`

// answer is how something was refused.
type answer struct{ input, detail, code, field, message string }

type answers struct {
	t     testing.TB
	list  []answer
	codes map[protocol.Code]bool
}

func (a *answers) add(input, detail string, err *protocol.Error) {
	a.t.Helper()
	if err == nil || err.Message == "" {
		a.t.Errorf("%s: not refused: %v", input, err)
		return
	}
	a.codes[err.Code] = true
	a.list = append(a.list, answer{input, detail, string(err.Code), err.Field, err.Message})
}

// section writes a table, and holds that no code of the closed list is missing in it, but
// those that cannot be.
func (a *answers) section(title, text, column string, never ...protocol.Code) string {
	for _, code := range protocol.Codes() {
		if a.codes[code] == slices.Contains(never, code) {
			a.t.Errorf("%s: answered with %s: %v", title, code, a.codes[code])
		}
	}
	out := "\n## " + title + "\n\n" + text + "\n\n| input | " + column + " | code | field | message |\n|---|---|---|---|---|\n"
	for _, r := range a.list {
		cell := func(s string) string { return strings.NewReplacer("|", `\|`, "\n", `\n`).Replace(s) }
		field := ""
		if r.field != "" {
			field = "`" + r.field + "`"
		}
		out += fmt.Sprintf("| %s | %s | `%s` | %s | %s |\n", cell(r.input), cell(r.detail), r.code, field, cell(r.message))
	}
	return out
}

// code is inline, shortened, with what differs between runs left out.
func code(s string) string {
	if s == "" {
		return ""
	}
	s = strings.ToValidUTF8(s, `\xff`)
	if len(s) > 90 {
		s = s[:60] + "..." + s[len(s)-6:]
	}
	return "`" + s + "`"
}

func refusal(err error) *protocol.Error {
	e, _ := errors.AsType[*protocol.Error](err)
	if e == nil {
		e, _ = api.ErrorOf(err)
	}
	return e
}

// broken is a process that answers every request with an internal error.
func (n *node) broken(do func()) {
	n.t.Helper()
	url, bearer := n.admin+"/v1/fault", token
	must(n.t, n.raw("POST", url, bearer, strings.NewReader(`{"error_ratio":1,"for_ms":60000}`), nil, nil))
	do()
	must(n.t, n.raw("DELETE", url, bearer, nil, nil, nil))
}

// TestErrorsAreDocumented sends bad input by each transport to a real process, and holds
// docs/errors.md to the answers, and those to the closed list.
func TestErrorsAreDocumented(t *testing.T) {
	w := newWorld(t)
	cfg := w.config("baseline")
	cfg.Search = search.ClientConfig{Addrs: []string{"127.0.0.1:1"}, Token: token} // nobody is there
	n := w.start(cfg)
	ann, _, eve := n.person("ann"), n.person("bob"), n.person("eve")
	id := n.direct(ann, "bob")
	got := errorsHead + n.restErrors(id, ann, eve) + n.grpcErrors(id, ann, eve) + n.socketErrors(id, ann, w)
	got = strings.ReplaceAll(got, id, "{id}")
	if *update {
		must(t, os.WriteFile(errorsDoc, []byte(got), 0o644)) //nolint:gosec // a document
	}
	want, err := os.ReadFile(errorsDoc)
	must(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("docs/errors.md (-has +answered):\n%s", diff)
	}
}

func (n *node) restErrors(id, ann, eve string) string {
	a := &answers{t: n.t, codes: map[protocol.Code]bool{}}
	rows := badRequests(id, ann, eve)
	rows = append(rows, badRequest{name: "search while no search process runs", method: "GET", path: "/v1/search?q=x", token: ann})
	ask := func(c badRequest) {
		err := n.raw(c.method, n.url+c.path, c.token, strings.NewReader(c.body), nil, nil)
		a.add(c.name, strings.TrimSpace(code(c.method+" "+strings.ReplaceAll(c.path, id, "{id}"))+" "+code(c.body)), refusal(err))
	}
	for _, c := range rows {
		ask(c)
	}
	other := badRequest{name: "from a page of another site", method: "POST", path: "/v1/conversations/" + id + "/messages", token: ann, body: `{"client_id":"1","text":"x"}`}
	a.add(other.name, code("Sec-Fetch-Site: cross-site"), refusal(n.raw(other.method, n.url+other.path, ann, strings.NewReader(other.body), http.Header{"Sec-Fetch-Site": {"cross-site"}}, nil)))
	n.broken(func() { ask(badRequest{name: "while core is at fault", method: "GET", path: "/v1/me", token: ann}) })
	wrong := badRequest{name: "log in too often", method: "POST", path: "/v1/sessions", body: `{"name":"eve","password":"87654321"}`}
	for {
		err := refusal(n.raw(wrong.method, n.url+wrong.path, "", strings.NewReader(wrong.body), nil, nil))
		if err == nil || err.Code != protocol.CodeUnauthenticated {
			a.add(wrong.name, code("POST /v1/sessions"), err)
			break
		}
	}
	return a.section("REST", "The HTTP status follows from the code.", "request")
}

func (n *node) grpcErrors(id, ann, eve string) string {
	a := &answers{t: n.t, codes: map[protocol.Code]bool{}}
	conn := n.grpc()
	accounts, messages := chatv1.NewAccountServiceClient(conn), chatv1.NewMessageServiceClient(conn)
	conversations, search := chatv1.NewConversationServiceClient(conn), chatv1.NewSearchServiceClient(conn)
	as := func(token string) context.Context { return as(n.t.Context(), token) }
	add := func(input, call string, err error) {
		n.t.Helper()
		if status.Code(err).String() == "OK" {
			n.t.Errorf("%s: no error", input)
		}
		a.add(input, code(call)+" "+code(status.Code(err).String()), refusal(err))
	}
	send := func(input, token string, in *chatv1.SendMessageRequest) {
		n.t.Helper()
		_, err := messages.SendMessage(as(token), in)
		add(input, "SendMessage", err)
	}
	_, err := accounts.GetMe(n.t.Context(), &chatv1.GetMeRequest{})
	add("no token", "GetMe", err)
	_, err = accounts.GetMe(as("a.b.c"), &chatv1.GetMeRequest{})
	add("garbage token", "GetMe", err)
	_, err = accounts.Register(n.t.Context(), &chatv1.RegisterRequest{Name: "ann", Password: "12345678"})
	add("taken name", "Register", err)
	_, err = accounts.Register(n.t.Context(), &chatv1.RegisterRequest{Name: "A", Password: "12345678"})
	add("bad name", "Register", err)
	_, err = accounts.GetUser(as(ann), &chatv1.GetUserRequest{Name: "nobody"})
	add("look up nobody", "GetUser", err)
	send("no text", ann, &chatv1.SendMessageRequest{Conversation: id, ClientId: "1"})
	send("no client id", ann, &chatv1.SendMessageRequest{Conversation: id, Text: "x"})
	send("U+0000 in a text", ann, &chatv1.SendMessageRequest{Conversation: id, ClientId: "1", Text: "\x00"})
	send("too long a text", ann, &chatv1.SendMessageRequest{Conversation: id, ClientId: "1", Text: strings.Repeat("x", 4097)})
	send("far too long a text", ann, &chatv1.SendMessageRequest{Conversation: id, ClientId: "1", Text: strings.Repeat("x", 70<<10)})
	send("to other people", eve, &chatv1.SendMessageRequest{Conversation: id, ClientId: "1", Text: "x"})
	send("a reply to nothing", ann, &chatv1.SendMessageRequest{Conversation: id, ClientId: "1", Text: "x", ReplyTo: 7})
	unknown := &chatv1.SendMessageRequest{Conversation: id, ClientId: "1", Text: "x"}
	unknown.ProtoReflect().SetUnknown([]byte{0x98, 0x06, 0x01})
	send("a field that there is not", ann, unknown)
	_, err = messages.AddReaction(as(ann), &chatv1.AddReactionRequest{Conversation: id, Seq: 1, Emoji: "ok", ClientId: "1"})
	add("react with a word", "AddReaction", err)
	_, err = messages.ListMessages(as(ann), &chatv1.ListMessagesRequest{Conversation: id, Before: new(int64)})
	add("history before the first", "ListMessages", err)
	_, err = messages.Mark(as(ann), &chatv1.MarkRequest{Conversation: id, Read: 99})
	add("read what is not there", "Mark", err)
	_, err = conversations.CreateConversation(as(ann), &chatv1.CreateConversationRequest{With: "ann"})
	add("talk to oneself", "CreateConversation", err)
	_, err = accounts.ChangePassword(as(ann), &chatv1.ChangePasswordRequest{Old: "87654321", New: "12345678"})
	add("a wrong old password", "ChangePassword", err)
	_, err = search.SearchMessages(as(ann), &chatv1.SearchMessagesRequest{Q: "x"})
	add("search while no search process runs", "SearchMessages", err)
	_, err = search.SearchMessages(as(ann), &chatv1.SearchMessagesRequest{Q: "x", After: &timestamppb.Timestamp{Seconds: 1 << 40}})
	add("search after the year 9999", "SearchMessages", err)
	_, err = search.SearchMessages(as(ann), &chatv1.SearchMessagesRequest{Q: "x", Before: &timestamppb.Timestamp{Nanos: -1}})
	add("search before no time", "SearchMessages", err)
	sub := n.subscribe(conn, ann, &chatv1.Resume{Positions: map[string]int64{"a": -1}})
	_, err = sub.stream.Recv()
	add("resume from before the start", "Subscribe", err)
	n.broken(func() {
		_, err := accounts.GetMe(as(ann), &chatv1.GetMeRequest{})
		add("while core is at fault", "GetMe", err)
	})
	for {
		_, err := accounts.LogIn(n.t.Context(), &chatv1.LogInRequest{Name: "bob", Password: "87654321"})
		if e := refusal(err); e == nil || e.Code != protocol.CodeUnauthenticated {
			add("log in too often", "LogIn", err)
			break
		}
	}
	return a.section("gRPC", "The error is among the details of the status, as `tracegate.chat.v1.Error`.", "call and status")
}

func (n *node) socketErrors(id, ann string, w *world) string {
	a := &answers{t: n.t, codes: map[protocol.Code]bool{}}
	handshake := func(input, token string, header http.Header) {
		n.t.Helper()
		_, err := n.tryOpen(token, newSeen(), header)
		a.add(input, "handshake", refusal(err))
	}
	handshake("no token", "", nil)
	handshake("garbage token", "a.b.c", nil)
	handshake("from a page of another site", ann, http.Header{"Origin": {"https://evil.example.org"}})
	full := w.config("canary")
	full.Session.MaxSockets = 1
	small := w.start(full)
	small.open(ann, newSeen())
	_, err := small.tryOpen(ann, newSeen(), nil)
	a.add("the process has as many as it takes", "handshake", refusal(err))
	c, _ := n.connect(ann, newSeen())
	do := func(input string, cmd protocol.Command) {
		n.t.Helper()
		_, err := c.do(cmd)
		name := "none"
		for field, is := range map[string]bool{
			"send": cmd.Send != nil, "edit": cmd.Edit != nil, "recall": cmd.Recall != nil, "react": cmd.React != nil, "mark": cmd.Mark != nil, "typing": cmd.Typing != nil, "resume": cmd.Resume != nil,
		} {
			if is {
				name = field
			}
		}
		a.add(input, strings.Replace(code(name), "`none`", "none", 1), refusal(err))
	}
	do("no command", protocol.Command{})
	do("no text", protocol.Command{Send: &protocol.Send{Conversation: id, ClientID: "1"}})
	do("no client id", protocol.Command{Send: &protocol.Send{Conversation: id, Text: "x"}})
	do("no conversation", protocol.Command{Send: &protocol.Send{ClientID: "1", Text: "x"}})
	do("other people's conversation", protocol.Command{Send: &protocol.Send{Conversation: "none", ClientID: "1", Text: "x"}})
	do("too long a text", protocol.Command{Send: &protocol.Send{Conversation: id, ClientID: "1", Text: strings.Repeat("x", 4097)}})
	do("edit nothing", protocol.Command{Edit: &protocol.Edit{Conversation: id, Seq: 7, ClientID: "1", Text: "x"}})
	do("recall seq 0", protocol.Command{Recall: &protocol.Recall{Conversation: id}})
	do("react with a word", protocol.Command{React: &protocol.React{Conversation: id, Seq: 1, Emoji: "ok", ClientID: "1"}})
	do("read what is not there", protocol.Command{Mark: &protocol.Mark{Conversation: id, Read: 99}})
	do("type elsewhere", protocol.Command{Typing: &protocol.Typing{Conversation: "none"}})
	do("resume from before the start", protocol.Command{Resume: &protocol.Resume{Positions: map[string]int64{"a": -1}}})
	n.broken(func() { do("while core is at fault", protocol.Command{Typing: &protocol.Typing{Conversation: id}}) })
	for {
		_, err := c.do(protocol.Command{Ping: &protocol.Ping{}})
		if e := refusal(err); e != nil {
			a.add("too many commands", code("ping"), e)
			break
		}
	}
	out := a.section("WebSocket", "A command is answered by a frame with its `id` and `error`; a handshake as REST is. No command makes what may exist already, so `already_exists` does not occur.", "command", protocol.CodeAlreadyExists)
	return out + "\nWhat cannot be read as commands ends the connection, with an `error` before it where it is JSON that is wrong:\n\n| input | close code |\n|---|---|\n" + n.closes(ann)
}

func (n *node) closes(ann string) string {
	out := ""
	for _, c := range []struct {
		input string
		kind  int
		frame string
	}{
		{"not JSON", websocket.TextMessage, "hello"},
		{"no id", websocket.TextMessage, `{"ping":{}}`},
		{"an unknown command", websocket.TextMessage, `{"id":1,"pong":{}}`},
		{"half a command", websocket.TextMessage, `{"id":2,`},
		{"more than 16 objects and lists in each other", websocket.TextMessage, `{"id":1,"ping":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`},
		{"binary, without the subprotocol for it", websocket.BinaryMessage, "\x01\x02\x03"},
		{"not UTF-8", websocket.TextMessage, "{\"id\":1,\"ping\":\"\xff\"}"},
		{"more than 32 KiB, and not the first frame", websocket.TextMessage, strings.Repeat("x", 33<<10)},
	} {
		s := n.open(ann, newSeen())
		_, err := s.do(protocol.Command{Ping: &protocol.Ping{}}) // the first frame
		must(n.t, err)
		must(n.t, s.ws.WriteMessage(c.kind, []byte(c.frame)))
		select {
		case <-s.closed:
		case <-time.After(time.Minute):
			n.t.Fatalf("%s: not closed", c.input)
		}
		closed, ok := errors.AsType[*websocket.CloseError](s.err)
		if !ok {
			n.t.Errorf("%s: %v", c.input, s.err)
			continue
		}
		out += fmt.Sprintf("| %s | %d |\n", c.input, closed.Code)
	}
	return out
}

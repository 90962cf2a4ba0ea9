package accept_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/accept"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

var (
	ann = chat.User{ID: "u1", Name: "ann"}
	eve = chat.User{ID: "u9", Name: "eve"}
	now = time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.UTC)
)

// conversations has one, "c1", of ann and bob.
type conversations struct {
	reads int
	down  error
}

func (c *conversations) Conversation(_ context.Context, id string) (chat.Conversation, error) {
	c.reads++
	if c.down != nil {
		return chat.Conversation{}, c.down
	}
	if id != "c1" {
		return chat.Conversation{}, chat.ErrNotFound
	}
	return chat.Conversation{ID: id, Members: []chat.User{ann, {ID: "u2", Name: "bob"}}}, nil
}

// logFunc is a Log.
type logFunc func(chat.Record, func(error))

func (f logFunc) Accept(_ context.Context, r chat.Record, done func(error)) { f(r, done) }

type result struct {
	accepted protocol.Accepted
	err      error
	calls    int
}

func send(t *testing.T, a *accept.Acceptor, from chat.User, m protocol.Send) result {
	t.Helper()
	results := make(chan result, 10)
	a.Accept(t.Context(), from, m, "trace", func(acc protocol.Accepted, err error) { results <- result{accepted: acc, err: err} })
	r := <-results
	r.calls = 1 + len(results)
	return r
}

func code(err error) protocol.Code {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e.Code
	}
	return ""
}

var good = protocol.Send{Conversation: "c1", ClientID: "m1", Text: "x"}

func TestAccept(t *testing.T) {
	var got []chat.Record
	answer := error(nil)
	cs := &conversations{}
	a := accept.New(cs, logFunc(func(r chat.Record, done func(error)) { got = append(got, r); done(answer) }), time.Minute, func() time.Time { return now })
	if r := send(t, a, ann, good); r.err != nil || r.accepted != (protocol.Accepted{ClientID: "m1", TraceID: "trace"}) {
		t.Errorf("got %+v", r)
	}
	want := []chat.Record{{
		Conversation: "c1", ClientID: "m1", SenderID: "u1", Sender: "ann", Text: "x", SentAt: now.Truncate(time.Microsecond), TraceID: "trace",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_ = send(t, a, ann, good)
	if cs.reads != 1 {
		t.Errorf("membership read %d times", cs.reads)
	}
	for name, c := range map[string]struct {
		from chat.User
		m    protocol.Send
		code protocol.Code
	}{
		"bad message":     {ann, protocol.Send{Conversation: "c1", ClientID: "m1"}, protocol.CodeInvalidArgument},
		"other people's":  {eve, good, protocol.CodeNotFound},
		"no conversation": {ann, protocol.Send{Conversation: "c2", ClientID: "m1", Text: "x"}, protocol.CodeNotFound},
	} {
		before := len(got)
		if r := send(t, a, c.from, c.m); code(r.err) != c.code || len(got) != before {
			t.Errorf("%s: %v", name, r.err)
		}
	}
	answer = errors.New("kafka is gone")
	r := send(t, a, ann, good)
	if code(r.err) != protocol.CodeUnavailable || !errors.Is(r.err, answer) {
		t.Errorf("log down: %v", r.err)
	}
	cs.down = errors.New("store is gone")
	if r := send(t, a, eve, good); code(r.err) != "" || !errors.Is(r.err, cs.down) {
		t.Errorf("store down: %v", r.err)
	}
	if r := send(t, a, ann, good); !errors.Is(r.err, answer) {
		t.Errorf("a member who is known does not need the store: %v", r.err)
	}
}

func TestLateAnswerIsNotASecondOne(t *testing.T) {
	late := make(chan func(error), 1)
	a := accept.New(&conversations{}, logFunc(func(_ chat.Record, done func(error)) { late <- done }), 10*time.Millisecond, time.Now)
	results := make(chan error, 10)
	a.Accept(t.Context(), ann, good, "", func(_ protocol.Accepted, err error) { results <- err })
	if err := <-results; code(err) != protocol.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	(<-late)(nil)
	if len(results) != 0 {
		t.Error("answered twice")
	}
}

func BenchmarkAccept(b *testing.B) {
	a := accept.New(&conversations{}, logFunc(func(_ chat.Record, done func(error)) { done(nil) }), time.Minute, time.Now)
	b.ReportAllocs()
	for b.Loop() {
		a.Accept(b.Context(), ann, good, "trace", func(_ protocol.Accepted, err error) {
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// TestMembershipMemoryIsBounded fills it beyond its bound; all answers stay right.
func TestMembershipMemoryIsBounded(t *testing.T) {
	cs := everyone{}
	a := accept.New(cs, nil, time.Minute, time.Now)
	for i := range 150_000 {
		if err := a.Member(t.Context(), fmt.Sprint(i), "u1"); err != nil {
			t.Fatal(err)
		}
	}
	if n := accept.Remembered(a); n > 100_000 {
		t.Errorf("%d remembered", n)
	}
	if err := a.Member(t.Context(), "0", "u2"); code(err) != protocol.CodeNotFound {
		t.Errorf("got %v", err)
	}
}

// everyone has u1 in every conversation.
type everyone struct{}

func (everyone) Conversation(_ context.Context, id string) (chat.Conversation, error) {
	return chat.Conversation{ID: id, Members: []chat.User{ann}}, nil
}

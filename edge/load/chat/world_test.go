package chat

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client/coretest"
)

// enrolled is a user of a core that is not there, with one device that is connected.
func enrolled(t *testing.T) (*coretest.Server, *room, *person) {
	t.Helper()
	s := coretest.New()
	r, err := newRoom(World{Edge: s.URL}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.close(); s.Close() })
	people, err := r.enroll(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	r.connect(t.Context(), people[0], 1, nil, 0, 1)
	if err := r.live(t.Context(), people[0]); err != nil {
		t.Fatal(err)
	}
	return s, r, people[0]
}

// TestTokensEndBeforeTheRun: a run goes on for longer than an access token, and nothing of
// it is counted as trouble.
func TestTokensEndBeforeTheRun(t *testing.T) {
	s, r, ann := enrolled(t)
	for opened := int64(2); opened < 5; opened++ {
		old := ann.users[0].Token()
		s.EndTokens(false)
		s.CloseSockets(protocol.CloseShutdown)
		for r.stats.Opened.Load() < opened {
			pause(t.Context(), time.Millisecond)
		}
		if ann.users[0].Token() == old {
			t.Error("the token was not replaced")
		}
	}
	if problems := r.book.Verdict(nil).Examples; len(problems) > 0 || r.stats.Logins.Load() != 0 {
		t.Errorf("%d log-ins, problems: %s", r.stats.Logins.Load(), strings.Join(problems, "; "))
	}
}

// TestSessionEndsUnderTheRun: after a refresh without an answer a user may have to log in
// again; without one, the session that ended is reported.
func TestSessionEndsUnderTheRun(t *testing.T) {
	for _, unanswered := range []int64{0, 1} {
		s, r, ann := enrolled(t)
		r.stats.Unanswered.Store(unanswered)
		s.EndTokens(true)
		_, _, err := ann.users[0].Me(t.Context())
		if final := ann.final(t.Context(), err); final != (unanswered == 0) {
			t.Errorf("%d unanswered: %v is final: %v", unanswered, err, final)
		}
		s.CloseSockets(protocol.CloseExpired)
		for unanswered == 1 && r.stats.Opened.Load() < 2 || unanswered == 0 && r.book.Verdict(nil).OK() {
			pause(t.Context(), time.Millisecond)
		}
		if got := r.stats.Logins.Load(); got != unanswered {
			t.Errorf("%d log-ins after %d unanswered", got, unanswered)
		}
		if unanswered == 1 && !r.book.Verdict(nil).OK() {
			t.Errorf("problems: %v", r.book.Verdict(nil).Examples)
		}
	}
}

package load

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tracegate/tracegate/core/protocol"
)

// step is one thing noted in a ledger about conversation c of alice and bob.
type step func(l *Ledger)

func message(id string, seq int64) protocol.Message {
	return protocol.Message{Conversation: "c", Sender: "alice", ClientID: id, Seq: seq, Text: "text of " + id}
}

func intent(id string) protocol.Send {
	return protocol.Send{Conversation: "c", ClientID: id, Text: "text of " + id}
}

func sent(ids ...string) step {
	return func(l *Ledger) {
		for _, id := range ids {
			l.Sent("alice", intent(id))
		}
	}
}

func accepted(ids ...string) step {
	return func(l *Ledger) {
		for _, id := range ids {
			l.Accepted("alice", intent(id))
		}
	}
}

func refused(id string) step { return func(l *Ledger) { l.Refused("alice", intent(id)) } }

// received and stored take "id@seq".
func received(member string, at ...string) step {
	return func(l *Ledger) {
		for _, m := range parse(at) {
			l.Received(member, m)
		}
	}
}

func stored(at ...string) step { return func(l *Ledger) { l.History("c", parse(at)) } }

func parse(at []string) (out []protocol.Message) {
	for _, s := range at {
		var id rune
		var seq int64
		if _, err := fmt.Sscanf(s, "%c@%d", &id, &seq); err != nil {
			panic(err)
		}
		out = append(out, message(string(id), seq))
	}
	return out
}

func TestLedger(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []step
		want  Messages
		wait  int
	}{
		{"all is well", []step{
			sent("a", "b"), accepted("a", "b"), received("bob", "a@1", "b@2"), received("alice", "a@1", "b@2"), stored("a@1", "b@2"),
		}, Messages{Sent: 2, Accepted: 2, Received: 2}, 0},
		{"received before the acceptance is noted", []step{
			sent("a"), received("bob", "a@1"), accepted("a"), stored("a@1"),
		}, Messages{Sent: 1, Accepted: 1, Received: 1}, 0},
		{"accepted and gone", []step{
			sent("a"), accepted("a"),
		}, Messages{Sent: 1, Accepted: 1, Lost: 1}, 1},
		{"the sender's copy is no delivery", []step{
			sent("a"), accepted("a"), received("alice", "a@1"), stored("a@1"),
		}, Messages{Sent: 1, Accepted: 1, Lost: 1}, 1},
		{"received, not stored", []step{
			sent("a"), accepted("a"), received("bob", "a@1"),
		}, Messages{Sent: 1, Accepted: 1, Received: 1, Lost: 1}, 0},
		{"unknown outcome, did not arrive", []step{
			sent("a"),
		}, Messages{Sent: 1, Unknown: 1}, 0},
		{"unknown outcome, arrived", []step{
			sent("a"), received("bob", "a@1"), stored("a@1"),
		}, Messages{Sent: 1, Unknown: 1, Received: 1}, 0},
		{"unknown outcome, stored and not delivered", []step{
			sent("a"), stored("a@1"),
		}, Messages{Sent: 1, Unknown: 1, Lost: 1}, 0},
		{"refused and stays away", []step{
			sent("a"), refused("a"),
		}, Messages{Sent: 1, Refused: 1}, 0},
		{"refused and arrives", []step{
			sent("a"), refused("a"), stored("a@1"), received("bob", "a@1"),
		}, Messages{Sent: 1, Refused: 1, Received: 1, Wrong: 1}, 0},
		{"delivered twice under one seq", []step{
			sent("a"), accepted("a"), received("bob", "a@1", "a@1"), stored("a@1"),
		}, Messages{Sent: 1, Accepted: 1, Received: 1, Duplicated: 1}, 0},
		{"numbered twice", []step{
			sent("a"), accepted("a"), received("bob", "a@1", "a@2"), stored("a@1", "a@2"),
		}, Messages{Sent: 1, Accepted: 1, Received: 1, Duplicated: 2}, 0},
		{"delivered out of order", []step{
			sent("a", "b"), accepted("a", "b"), received("bob", "b@2", "a@1"), stored("a@1", "b@2"),
		}, Messages{Sent: 2, Accepted: 2, Received: 2, OutOfOrder: 1, Gaps: 1}, 0},
		{"a seq is skipped", []step{
			sent("a", "b"), accepted("a", "b"), received("bob", "a@1", "b@3"), stored("a@1", "b@3"),
		}, Messages{Sent: 2, Accepted: 2, Received: 2, Gaps: 2}, 0},
		{"history out of order", []step{
			sent("a", "b"), accepted("a", "b"), received("bob", "a@1", "b@2"), stored("b@2", "a@1"),
		}, Messages{Sent: 2, Accepted: 2, Received: 2, OutOfOrder: 1, Gaps: 1}, 0},
		{"sent after an acceptance and numbered before it", []step{
			sent("a"), accepted("a"), sent("b"), accepted("b"), received("bob", "b@1", "a@2"), stored("b@1", "a@2"),
		}, Messages{Sent: 2, Accepted: 2, Received: 2, OutOfOrder: 1}, 0},
		{"sent at the same time: any order will do", []step{
			sent("a", "b"), accepted("a", "b"), received("bob", "b@1", "a@2"), stored("b@1", "a@2"),
		}, Messages{Sent: 2, Accepted: 2, Received: 2}, 0},
		{"received under another seq than stored", []step{
			sent("a", "b"), accepted("a", "b"), received("bob", "a@1", "b@2"), stored("b@1", "a@2"),
		}, Messages{Sent: 2, Accepted: 2, Received: 2, Wrong: 2}, 0},
		{"nobody sent it", []step{
			received("bob", "x@1"), stored("x@1"),
		}, Messages{Wrong: 2}, 0},
		{"not a member", []step{
			sent("a"), accepted("a"), received("bob", "a@1"), received("mallory", "a@1"), stored("a@1"),
		}, Messages{Sent: 1, Accepted: 1, Received: 1, Wrong: 1}, 0},
		{"another text", []step{
			sent("a"), accepted("a"), stored("a@1"), func(l *Ledger) {
				m := message("a", 1)
				m.Text = "?"
				l.Received("bob", m)
			},
		}, Messages{Sent: 1, Accepted: 1, Received: 1, Wrong: 1}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := NewLedger()
			l.Open("c", "alice", "bob")
			for _, s := range tt.steps {
				s(l)
			}
			if n := l.Waiting(); n != tt.wait {
				t.Errorf("Waiting = %d, want %d", n, tt.wait)
			}
			got := l.Verdict()
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Messages{}, "Examples")); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
			problems := got.Lost + got.Duplicated + got.OutOfOrder + got.Gaps + got.Wrong
			if len(got.Examples) != problems || got.OK() != (problems == 0) {
				t.Errorf("%d problems, OK %v, told: %q", problems, got.OK(), got.Examples)
			}
		})
	}
}

func TestLedgerTellsAFewExamples(t *testing.T) {
	l := NewLedger()
	l.Open("c", "alice", "bob")
	for i := range 100 {
		id := fmt.Sprint(i)
		l.Sent("alice", intent(id))
		l.Accepted("alice", intent(id))
	}
	if got := l.Verdict(); got.Lost != 100 || len(got.Examples) != maxExamples {
		t.Errorf("lost %d with %d examples, want 100 with %d", got.Lost, len(got.Examples), maxExamples)
	}
}

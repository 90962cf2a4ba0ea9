package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/deliver"
	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/protocol"
)

// store numbers by the pure rule and refuses texts that say so.
type store struct {
	state chat.State
	down  error
	calls int
	swept []time.Time
	sweep func() // is called after one
}

func (s *store) SweepRefusals(_ context.Context, before time.Time) error {
	s.swept = append(s.swept, before)
	s.sweep()
	return s.down
}

func (s *store) Append(_ context.Context, records []chat.Record) ([]chat.Numbered, error) {
	s.calls++
	if s.down != nil {
		return nil, s.down
	}
	for _, r := range records {
		if r.Text == "poison" {
			return nil, fmt.Errorf("insert: %w", chat.ErrUnstorable)
		}
	}
	out := chat.Number(records, s.state)
	for _, n := range out {
		if n.Seq > 0 {
			s.state.Standing[n.Conversation] = chat.Standing{LastSeq: max(n.Seq, s.state.Standing[n.Conversation].LastSeq), Roster: n.Roster}
			s.state.Existing[n.Key()] = n.Seq
		}
	}
	return out, nil
}

type pushes struct {
	local, remote []string
	processes     int // others
}

func (p *pushes) Processes() int { return p.processes }

func (p *pushes) Deliver(user, conversation string, seq int64, frame []byte) {
	p.local = append(p.local, fmt.Sprintf("%s %s/%d hint=%v", user, conversation, seq, len(frame) == 0))
}

func (p *pushes) DeliverAll(members *chat.Roster, conversation string, seq int64, frame []byte) {
	for _, m := range members.Members {
		p.Deliver(m.ID, conversation, seq, frame)
	}
}

func (p *pushes) Publish(list []fanout.Push) {
	for _, push := range list {
		to := push.User
		switch {
		case to != "":
		case len(push.Users) > 0:
			to = "all named " + strings.Join(push.Users, ",")
		default:
			to = fmt.Sprintf("all of version %d", push.Version)
		}
		p.remote = append(p.remote, fmt.Sprintf("%s %s/%d hint=%v", to, push.Conversation, push.Seq, len(push.Frame) == 0))
	}
}

func rig(t testing.TB) (*deliver.Deliverer, *store, *pushes) {
	t.Helper()
	s := &store{state: chat.State{
		Standing: map[string]chat.Standing{"c": {Roster: chat.NewRoster(false, 0, []chat.Member{{ID: "u1", Name: "ann"}, {ID: "u2", Name: "bob"}})}},
		Existing: map[chat.Key]int64{},
	}}
	p := &pushes{processes: 1000}
	d, err := deliver.New(s, p, p, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return d, s, p
}

func record(id, text string) chat.Record {
	return chat.Record{Conversation: "c", SenderID: "u1", Sender: "ann", ClientID: id, Text: text, SentAt: time.Unix(1, 0).UTC()}
}

func TestStoredIsPushedAndRepetitionIsAHint(t *testing.T) {
	d, _, p := rig(t)
	stranger := record("3", "x")
	stranger.SenderID = "u9"
	reasons, err := d.Store(t.Context(), []chat.Record{record("1", "a"), record("1", "another text"), stranger})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]chat.Reason{"", "", chat.ReasonNotMember}, reasons); diff != "" {
		t.Error(diff)
	}
	want := []string{"u1 c/1 hint=false", "u2 c/1 hint=false", "u1 c/1 hint=true", "u2 c/1 hint=true"}
	if diff := cmp.Diff(want, p.local); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, p.remote); diff != "" {
		t.Error(diff)
	}
}

func TestUnstorableRecordDoesNotStopTheOthers(t *testing.T) {
	d, s, p := rig(t)
	reasons, err := d.Store(t.Context(), []chat.Record{record("1", "a"), record("2", "poison"), record("3", "b")})
	if diff := cmp.Diff([]chat.Reason{"", chat.ReasonRefused, ""}, reasons); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if s.state.Standing["c"].LastSeq != 2 || len(p.local) != 4 {
		t.Errorf("stored %v, pushed %v", s.state.Standing, p.local)
	}
}

func TestRefusalsAreForgottenAfterTheLog(t *testing.T) {
	d, s, _ := rig(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.sweep, s.down = cancel, errors.New("down")
	now := time.Unix(100_000, 0)
	if err := d.Run(ctx, 7*time.Hour, func() time.Time { return now }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]time.Time{now.Add(-14 * time.Hour)}, s.swept); diff != "" {
		t.Error(diff)
	}
}

func TestNothingIsPushedThatIsNotStored(t *testing.T) {
	d, s, p := rig(t)
	s.down = errors.New("down")
	if _, err := d.Store(t.Context(), []chat.Record{record("1", "a")}); !errors.Is(err, s.down) {
		t.Errorf("got %v", err)
	}
	if len(p.local)+len(p.remote) != 0 {
		t.Errorf("pushed %v %v", p.local, p.remote)
	}
}

func TestFrameIsTheWireForm(t *testing.T) {
	got := string(deliver.Frame(protocol.Message{Conversation: "c", Seq: 1, ClientID: "m", Sender: "ann", Text: "x", SentAt: time.Unix(1, 5000).UTC(), TraceID: "t"}))
	const want = `{"message":{"conversation":"c","seq":1,"client_id":"m","sender":"ann","text":"x","sent_at":"1970-01-01T00:00:01.000005Z","trace_id":"t"}}`
	if got != want {
		t.Errorf("got %s", got)
	}
}

// TestLargeGroupIsOnePush: past a number of members all of them are one push, and who is
// removed gets one for itself, with the entry that says so and nothing after it.
func TestLargeGroupIsOnePush(t *testing.T) {
	d, s, p := rig(t)
	members := []chat.Member{{ID: "u1", Name: "ann", Role: chat.RoleOwner}}
	for i := range deliver.Named {
		members = append(members, chat.Member{ID: fmt.Sprintf("v%03d", i), Name: "abc"})
	}
	s.state.Standing["c"] = chat.Standing{LastSeq: 7, Roster: chat.NewRoster(true, 5, members)}
	removed := record("2", "")
	removed.Kind, removed.Members = protocol.EventRemoved, []chat.Member{{ID: "v007", Name: "abc"}}
	reasons, err := d.Store(t.Context(), []chat.Record{record("1", "a"), removed, record("3", "b")})
	if err != nil || reasons[0]+reasons[1]+reasons[2] != "" {
		t.Fatalf("%v %v", err, reasons)
	}
	want := []string{"all of version 5 c/8 hint=false"}
	for _, m := range members { // just as many as are named, and fewer than there are processes
		if m.ID != "v007" {
			want = append(want, m.ID+" c/9 hint=false")
		}
	}
	want = append(want, "v007 c/9 hint=false")
	for _, m := range members {
		if m.ID != "v007" {
			want = append(want, m.ID+" c/10 hint=false")
		}
	}
	if diff := cmp.Diff(want, p.remote); diff != "" {
		t.Error(diff)
	}
}

// TestPushesAreTheLesserOfMembersAndProcesses: what one push to all costs grows with the
// processes, what pushes one by one cost with the members.
func TestPushesAreTheLesserOfMembersAndProcesses(t *testing.T) {
	for processes, want := range map[int][]string{
		0: {"all named u1,u2,u3 c/1 hint=false"}, // not known: the push will tell
		1: {"all named u1,u2,u3 c/1 hint=false"},
		2: {"all named u1,u2,u3 c/1 hint=false"},
		3: {"u1 c/1 hint=false", "u2 c/1 hint=false", "u3 c/1 hint=false"},
	} {
		d, s, p := rig(t)
		p.processes = processes
		s.state.Standing["c"] = chat.Standing{Roster: chat.NewRoster(true, 0, []chat.Member{{ID: "u1", Name: "ann"}, {ID: "u2", Name: "bob"}, {ID: "u3", Name: "cid"}})}
		if _, err := d.Store(t.Context(), []chat.Record{record("1", "a")}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, p.remote); diff != "" {
			t.Errorf("%d processes: %s", processes, diff)
		}
		if len(p.local) != 3 {
			t.Errorf("here: %v", p.local)
		}
	}
}

func TestAnnounceTellsTheFirstMembers(t *testing.T) {
	d, _, p := rig(t)
	d.Announce(chat.Numbered{
		Record: chat.Record{Kind: protocol.EventCreated, Conversation: "g"}, Seq: 1, Roster: chat.NewRoster(true, 1, []chat.Member{{ID: "u2"}, {ID: "u1"}}),
	})
	if diff := cmp.Diff([]string{"u1 g/1 hint=false", "u2 g/1 hint=false"}, p.remote); diff != "" {
		t.Error(diff)
	}
}

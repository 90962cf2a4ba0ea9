package search

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store"
)

var at = time.Date(2026, 5, 4, 3, 2, 1, 123456000, time.UTC)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// desk is a database with an index that follows it when told to.
type desk struct {
	t     *testing.T
	dir   string
	store *store.Store
	index *Index
	*Searcher
	clock time.Time
	n     int
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	cfg := store.DefaultConfig()
	cfg.URL = "sqlite:" + filepath.Join(t.TempDir(), "core.db")
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	d := &desk{t: t, dir: t.TempDir(), store: s, clock: at}
	d.open(s.Epoch())
	t.Cleanup(func() { _ = d.index.Close() })
	return d
}

func (d *desk) open(epoch string) {
	d.t.Helper()
	var err error
	if d.index, err = OpenIndex(d.dir, epoch, false, quiet()); err != nil {
		d.t.Fatal(err)
	}
	d.Searcher = NewSearcher(d.index, d.store)
}

func (d *desk) person(name string) chat.User {
	d.t.Helper()
	u := chat.User{ID: "u-" + name, Name: name, Tenant: "public"}
	if err := d.store.CreateUser(d.t.Context(), u, "x", at); err != nil {
		d.t.Fatal(err)
	}
	return u
}

func (d *desk) group(id string, owner chat.User, others ...chat.User) {
	d.t.Helper()
	r := chat.Record{Conversation: id, ClientID: "created." + id, SenderID: owner.ID, Sender: owner.Name, SentAt: at, Name: id}
	for _, u := range others {
		r.Members = append(r.Members, chat.Member{ID: u.ID, Name: u.Name})
	}
	if _, _, err := d.store.Group(d.t.Context(), r, 100); err != nil {
		d.t.Fatal(err)
	}
}

// do stores a record and returns its seq.
func (d *desk) do(conversation string, from chat.User, edit func(*chat.Record)) int64 {
	d.t.Helper()
	d.n++
	d.clock = d.clock.Add(time.Second)
	r := chat.Record{Conversation: conversation, ClientID: fmt.Sprint("m", d.n), SenderID: from.ID, Sender: from.Name, SentAt: d.clock}
	edit(&r)
	out, err := d.store.Append(d.t.Context(), []chat.Record{r})
	if err != nil || out[0].Refused != "" {
		d.t.Fatalf("%v %+v", err, out)
	}
	return out[0].Seq
}

func (d *desk) say(conversation string, from chat.User, text string) int64 {
	return d.do(conversation, from, func(r *chat.Record) { r.Text = text })
}

func (d *desk) follow(conversations ...string) {
	d.t.Helper()
	if _, err := catchUp(d.t.Context(), d.index, d.store, conversations...); err != nil {
		d.t.Fatal(err)
	}
}

// texts are what a user finds, newest first.
func (d *desk) texts(u chat.User, text string, edit ...func(*Query)) []string {
	d.t.Helper()
	q := Query{UserID: u.ID, Text: text, Limit: 50}
	for _, e := range edit {
		e(&q)
	}
	page, err := d.Search(d.t.Context(), q)
	if err != nil {
		d.t.Fatal(err)
	}
	out := []string{}
	for _, r := range page.Results {
		out = append(out, r.Message.Text)
	}
	return out
}

func (d *desk) want(what string, got []string, want ...string) {
	d.t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		d.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestFindsOnlyWhatMayBeSeen(t *testing.T) {
	d := newDesk(t)
	ann, bob, cid, eve := d.person("ann"), d.person("bob"), d.person("cid"), d.person("eve")
	d.group("g", ann, bob)
	d.group("h", ann)
	d.say("g", ann, "apple one")
	d.do("g", ann, func(r *chat.Record) {
		r.Kind, r.Members = protocol.EventAdded, []chat.Member{{ID: cid.ID, Name: cid.Name}}
	})
	d.say("g", bob, "apple two")
	d.do("g", ann, func(r *chat.Record) {
		r.Kind, r.Members = protocol.EventRemoved, []chat.Member{{ID: bob.ID, Name: bob.Name}}
	})
	d.say("g", ann, "apple three")
	d.say("h", ann, "apple four")
	d.follow("g", "h")
	d.want("ann", d.texts(ann, "apple"), "apple four", "apple three", "apple two", "apple one")
	d.want("bob, who left", d.texts(bob, "apple"), "apple two", "apple one")
	d.want("cid, who came", d.texts(cid, "apple"), "apple three", "apple two")
	d.want("eve", d.texts(eve, "apple"))
	d.want("sender", d.texts(ann, "apple", func(q *Query) { q.Sender = "bob" }), "apple two")
	d.want("conversation", d.texts(ann, "apple", func(q *Query) { q.Conversation = "h" }), "apple four")
	d.want("after", d.texts(ann, "apple", func(q *Query) { q.After = at.Add(5 * time.Second) }), "apple four", "apple three")
	d.want("before", d.texts(ann, "apple", func(q *Query) { q.Before = at.Add(3 * time.Second) }), "apple one")
	d.want("none of several", d.texts(ann, "apple -four -three"), "apple two", "apple one")
	_, err := d.Search(t.Context(), Query{UserID: eve.ID, Text: "apple", Conversation: "g", Limit: 1})
	if pe, ok := errors.AsType[*protocol.Error](err); !ok || pe.Code != protocol.CodeNotFound || pe.Field != "conversation" {
		t.Errorf("other people's conversation: %v", err)
	}
}

func TestStaysRightAfterEditAndRecall(t *testing.T) {
	d := newDesk(t)
	ann, bob := d.person("ann"), d.person("bob")
	d.group("g", ann, bob)
	one := d.say("g", ann, "the red door")
	two := d.say("g", ann, "the red window")
	d.follow("g")
	edit := func(seq int64, text string) {
		d.do("g", ann, func(r *chat.Record) { r.Kind, r.Target, r.Text = protocol.EventEdited, seq, text })
	}
	edit(one, "the blue door")
	// The index lags behind: it must not show what is not there any more.
	d.want("old text, before", d.texts(bob, "red"), "the red window")
	d.follow("g")
	d.want("old text", d.texts(bob, "red"), "the red window")
	d.want("new text", d.texts(bob, "blue"), "the blue door")
	d.do("g", ann, func(r *chat.Record) { r.Kind, r.Target = protocol.EventRecalled, two })
	d.want("recalled, before", d.texts(bob, "window"))
	d.follow("g")
	d.want("recalled", d.texts(bob, "window"))
	if n, _, err := d.index.Size(); err != nil || n != 1 {
		t.Errorf("%d documents, %v", n, err)
	}
	edit(one, "東京 door")
	d.follow("g")
	d.want("in another script", d.texts(bob, "東京"), "東京 door")
	d.want("a part of it", d.texts(bob, "京"), "東京 door")
}

func TestPagesHaveEachOnce(t *testing.T) {
	d := newDesk(t)
	ann, bob := d.person("ann"), d.person("bob")
	d.group("g", ann)
	var want []string
	for i := range 25 {
		text := fmt.Sprintf("pear %d", i)
		d.say("g", ann, text)
		if i%5 == 0 {
			d.clock = d.clock.Add(-time.Second) // two of one time
		}
		want = append(want, text)
	}
	d.follow("g")
	slices.Reverse(want)
	var got []string
	q := Query{UserID: ann.ID, Text: "pear", Limit: 4}
	for pages := 0; ; pages++ {
		page, err := d.Search(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Results {
			got = append(got, r.Message.Text)
		}
		if q.Cursor = page.Next; page.Next == "" {
			break
		}
		if pages > 10 {
			t.Fatal("no end")
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// Who comes late sees nothing of it, in however many pages.
	d.do("g", ann, func(r *chat.Record) {
		r.Kind, r.Members = protocol.EventAdded, []chat.Member{{ID: bob.ID, Name: bob.Name}}
	})
	d.say("g", ann, "pear late")
	d.follow("g")
	d.want("bob", d.texts(bob, "pear"), "pear late")
}

func TestIndexIsMadeAnewWhereItCannotBeUsed(t *testing.T) {
	d := newDesk(t)
	ann := d.person("ann")
	d.group("g", ann)
	d.say("g", ann, "plum")
	d.follow("g")
	name := d.index.Name()
	reopen := func(epoch string) {
		t.Helper()
		if err := d.index.Close(); err != nil {
			t.Fatal(err)
		}
		d.open(epoch)
	}
	reopen(d.store.Epoch())
	if d.index.Name() != name {
		t.Error("a good index was made anew")
	}
	d.want("after a restart", d.texts(ann, "plum"), "plum")
	if _, err := OpenIndex(d.dir, d.store.Epoch(), true, quiet()); !errors.Is(err, errLocked) {
		t.Errorf("opened twice: %v", err)
	}
	reopen("another history")
	d.want("of another history", d.texts(ann, "plum"))
	reopen(d.store.Epoch())
	d.follow("g")
	if err := d.index.Close(); err != nil {
		t.Fatal(err)
	}
	broken := 0
	err := filepath.WalkDir(d.dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && (strings.HasSuffix(path, ".zap") || strings.HasSuffix(path, "root.bolt")) {
			broken++
			return os.WriteFile(path, []byte("not what it was"), 0o600)
		}
		return err
	})
	if err != nil || broken == 0 {
		t.Fatalf("%v, %d files", err, broken)
	}
	d.open(d.store.Epoch())
	d.follow("g")
	d.want("after it was broken", d.texts(ann, "plum"), "plum")
}

func TestIndexIsBounded(t *testing.T) {
	d := newDesk(t)
	ann := d.person("ann")
	d.group("g", ann)
	for i := range 30 {
		d.say("g", ann, fmt.Sprintf("fig number%d", i))
	}
	d.follow("g")
	for more := true; more; {
		var err error
		if more, err = d.index.Trim(context.Background(), 10, 8); err != nil {
			t.Fatal(err)
		}
	}
	got := d.texts(ann, "fig")
	if len(got) != 10 || got[0] != "fig number29" || got[9] != "fig number20" {
		t.Errorf("left %v", got)
	}
}

// TestCatchUpInBatches: many small conversations and a large one, in batches that end
// anywhere, each once.
func TestCatchUpInBatches(t *testing.T) {
	d := newDesk(t)
	ann := d.person("ann")
	var records []chat.Record
	var all []string
	for c := range 40 {
		id := fmt.Sprintf("g%02d", c)
		d.group(id, ann)
		all = append(all, id)
		n := 20
		if c == 7 {
			n = 1200
		}
		for i := range n {
			records = append(records, chat.Record{
				Conversation: id, ClientID: fmt.Sprint("m", i), SenderID: ann.ID, Sender: ann.Name, Text: fmt.Sprintf("word c%d", c), SentAt: at.Add(time.Duration(len(records)) * time.Second),
			})
		}
	}
	if _, err := d.store.Append(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again changes nothing
		d.follow(append(all, "none")...)
	}
	if n, _, err := d.index.Size(); err != nil || n != uint64(len(records)) {
		t.Errorf("%d of %d messages, %v", n, len(records), err)
	}
	d.want("one of the small", d.texts(ann, "c39")[:1], "word c39")
	if got := d.texts(ann, "c39"); len(got) != 20 {
		t.Errorf("%d of 20", len(got))
	}
}

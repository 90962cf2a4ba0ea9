package store_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store"
)

var roomy = chat.FileQuota{Bytes: 1 << 40, Files: 1000}

// upload keeps a file of a user.
func upload(t testing.TB, s *store.Store, owner chat.User, id string) chat.File {
	t.Helper()
	f := chat.File{
		File:    protocol.File{ID: id, Name: id + ".png", Type: "image/png", Size: 1000},
		OwnerID: owner.ID, UploadedAt: at,
	}
	if err := s.BeginFile(t.Context(), f, roomy); err != nil {
		t.Fatal(err)
	}
	f.Size, f.Width, f.Height, f.ThumbnailType, f.Thumbnail = 900, 4, 3, "image/jpeg", true
	if err := s.FinishFile(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	return f
}

func sendFile(conversation string, from chat.User, clientID, id string) chat.Record {
	r := record(conversation, from, clientID)
	r.File = id
	return r
}

func recall(conversation string, from chat.User, seq int64) chat.Record {
	r := change(conversation, from, protocol.EventRecalled, "x")
	r.ClientID, r.Target = "recall."+time.Duration(seq).String(), seq
	return r
}

// visible says which of the users may download a file.
func visible(t testing.TB, s *store.Store, id string, users ...chat.User) []string {
	t.Helper()
	var out []string
	for _, u := range users {
		_, err := s.File(t.Context(), u.ID, id)
		if err == nil {
			out = append(out, u.Name)
		} else if !errors.Is(err, chat.ErrNotFound) {
			t.Fatal(err)
		}
	}
	return out
}

func TestFileIsSeenWithItsMessage(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid, dan := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid"), person(t, s, "dan")
		everybody := []chat.User{ann, bob, cid, dan}
		group(t, s, "g", ann, bob)
		direct(t, s, "d", ann, dan)
		f := upload(t, s, ann, "f1")
		if diff := cmp.Diff([]string{"ann"}, visible(t, s, "f1", everybody...)); diff != "" {
			t.Error("before it is sent:", diff)
		}
		sent := appendAll(t, s, sendFile("g", ann, "1", "f1"))
		if diff := cmp.Diff(&f.File, sent[0].Message().File); diff != "" {
			t.Error("what is pushed:", diff)
		}
		if got := history(t, s, bob, "g"); !cmp.Equal(got[len(got)-1].File, &f.File) {
			t.Errorf("history has %+v", got[len(got)-1].File)
		}
		appendAll(t, s, change("g", ann, protocol.EventAdded, "1", cid), sendFile("d", ann, "1", "f1"))
		if diff := cmp.Diff([]string{"ann", "bob", "dan"}, visible(t, s, "f1", everybody...)); diff != "" {
			t.Error("who came later does not see it:", diff)
		}
		appendAll(t, s, change("g", ann, protocol.EventRemoved, "2", bob))
		if diff := cmp.Diff([]string{"ann", "bob", "dan"}, visible(t, s, "f1", everybody...)); diff != "" {
			t.Error("who was removed sees it as the history:", diff)
		}
		appendAll(t, s, recall("g", ann, sent[0].Seq))
		if diff := cmp.Diff([]string{"ann", "dan"}, visible(t, s, "f1", everybody...)); diff != "" {
			t.Error("after the recall in the group:", diff)
		}
		if got := history(t, s, ann, "g"); got[1].File != nil || !got[1].Recalled {
			t.Errorf("recalled: %+v", got[1])
		}
		if got, err := s.File(t.Context(), dan.ID, "f1"); err != nil || !cmp.Equal(got, f) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestOnlyTheUploaderSendsWholeFiles(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		direct(t, s, "d", ann, bob)
		upload(t, s, ann, "f1")
		half := chat.File{File: protocol.File{ID: "f2", Name: "x", Type: "text/plain", Size: 1}, OwnerID: ann.ID, UploadedAt: at}
		if err := s.BeginFile(t.Context(), half, roomy); err != nil {
			t.Fatal(err)
		}
		out, err := s.Append(t.Context(), []chat.Record{
			sendFile("d", bob, "1", "f1"), sendFile("d", ann, "1", "f2"), sendFile("d", ann, "2", "none"), sendFile("d", ann, "3", "f1"),
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []chat.Reason
		for _, n := range out {
			got = append(got, n.Refused)
		}
		if diff := cmp.Diff([]chat.Reason{chat.ReasonFile, chat.ReasonFile, chat.ReasonFile, ""}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLooseFilesAreSwept(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		direct(t, s, "d", ann, bob)
		for _, id := range []string{"sent", "never", "recalled", "twice", "inbatch"} {
			upload(t, s, ann, id)
		}
		out := appendAll(t, s, sendFile("d", ann, "1", "sent"), sendFile("d", ann, "2", "recalled"), sendFile("d", ann, "3", "twice"), sendFile("d", ann, "4", "twice"))
		appendAll(t, s, recall("d", ann, out[1].Seq), recall("d", ann, out[2].Seq),
			sendFile("d", ann, "5", "inbatch"), recall("d", ann, out[3].Seq+3))
		doomed := func(before time.Time) []string {
			ids, err := s.DoomFiles(t.Context(), before, 10)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(ids)
			return ids
		}
		if ids := doomed(at); len(ids) > 0 {
			t.Errorf("too early: %v", ids)
		}
		want := []string{"inbatch", "never", "recalled"}
		for range 2 { // they stay until they are forgotten
			if diff := cmp.Diff(want, doomed(at.Add(time.Second))); diff != "" {
				t.Error(diff)
			}
		}
		if got := visible(t, s, "never", ann); len(got) > 0 {
			t.Error("a doomed file can be downloaded")
		}
		refused, err := s.Append(t.Context(), []chat.Record{sendFile("d", ann, "9", "never")})
		if err != nil || refused[0].Refused != chat.ReasonFile {
			t.Errorf("a doomed file can be sent: %v %v", refused, err)
		}
		for _, id := range append(want, "sent") { // the last is whole, and stays
			if err := s.ForgetFile(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
		if ids := doomed(at.Add(time.Second)); len(ids) > 0 {
			t.Errorf("forgotten: %v", ids)
		}
		if got := visible(t, s, "sent", bob); len(got) != 1 {
			t.Error("a file that is in use was forgotten")
		}
		if err := s.FinishFile(t.Context(), chat.File{File: protocol.File{ID: "never"}}); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("finished after it was swept: %v", err)
		}
	})
}

func TestFileQuotaHoldsAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann := person(t, s, "ann")
		begin := func(id string, size int64, quota chat.FileQuota) error {
			return s.BeginFile(t.Context(), chat.File{File: protocol.File{ID: id, Name: "x", Type: "y", Size: size}, OwnerID: ann.ID, UploadedAt: at}, quota)
		}
		var wg sync.WaitGroup
		fit := make(chan string, 20)
		for i := range 20 {
			wg.Go(func() {
				id := time.Duration(i).String()
				err := begin(id, 10, chat.FileQuota{Bytes: 50, Files: 100})
				if err == nil {
					fit <- id
				} else if !errors.Is(err, chat.ErrLimit) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(fit) != 5 {
			t.Errorf("%d of 10 bytes fit into 50", len(fit))
		}
		if err := begin("more", 1, chat.FileQuota{Bytes: 1000, Files: 5}); !errors.Is(err, chat.ErrLimit) {
			t.Errorf("sixth of five: %v", err)
		}
		if err := s.ForgetFile(t.Context(), <-fit); err != nil {
			t.Error(err)
		}
		if err := begin("more", 10, chat.FileQuota{Bytes: 50, Files: 5}); err != nil {
			t.Errorf("after one was forgotten: %v", err)
		}
	})
}

// TestSweepAndSendAtOnce: whoever is first wins, and nobody sends what is swept.
func TestSweepAndSendAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		direct(t, s, "d", ann, bob)
		for i := range 20 {
			id := "f" + time.Duration(i).String()
			upload(t, s, ann, id)
			var sent []chat.Numbered
			var doomed []string
			var wg sync.WaitGroup
			wg.Go(func() {
				var err error
				if sent, err = s.Append(t.Context(), []chat.Record{sendFile("d", ann, id, id)}); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				var err error
				if doomed, err = s.DoomFiles(t.Context(), at.Add(time.Hour), 100); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			if len(sent) != 1 || (sent[0].Refused == "") == slices.Contains(doomed, id) {
				t.Fatalf("sent %+v, doomed %v", sent, doomed)
			}
		}
	})
}

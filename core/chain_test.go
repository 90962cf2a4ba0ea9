package core_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMessageReachesTheOtherProcess(t *testing.T) {
	w := newWorld(t)
	one, two := w.start(w.config("baseline")), w.start(w.config("canary"))
	ann, bob := one.person("ann"), two.person("bob")
	id := one.direct(ann, "bob")
	atOne, atTwo := newSeen(), newSeen()
	a, _ := one.connect(ann, atOne)
	two.connect(bob, atTwo)
	must(t, a.send(id, "by-socket"))
	must(t, two.send(bob, id, "by-rest"))
	atOne.wait(t, id, 2) // a sender's own connections get the message with its number as well
	atTwo.wait(t, id, 2)
	var page struct {
		Messages []struct {
			Seq              int64
			Sender, ClientID string
			Text             string
		}
		Epoch string
	}
	must(t, two.call("GET", "/v1/conversations/"+id+"/messages?after=0&limit=10", bob, nil, &page))
	if len(page.Messages) != 2 || page.Messages[0].Text != "text by-socket" || page.Epoch != a.hello.Epoch {
		t.Errorf("history: %+v", page)
	}
	if diff := cmp.Diff(atOne.ids, atTwo.ids); diff != "" {
		t.Errorf("the two saw different orders: %s", diff)
	}
}

package console

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A viewer that does not read is dropped when it is a backlog behind; the publisher
// never waits, and the others miss nothing.
func TestSlowViewerIsDropped(t *testing.T) {
	m := newMetrics(nil)
	h := newHub(2, m, func() {})
	slow, healthy := h.join(), h.join()
	for i := range backlog + 1 {
		if err := h.publish("groups", i); err != nil {
			t.Fatal(err)
		}
		<-healthy.events
	}
	select {
	case <-slow.over:
	default:
		t.Fatal("the slow viewer is still there")
	}
	select {
	case <-healthy.over:
		t.Fatal("the healthy viewer was dropped")
	default:
	}
	if n := testutil.ToFloat64(m.dropped.WithLabelValues(dropSlow)); n != 1 {
		t.Errorf("slow was counted %v times", n)
	}
	if n := testutil.ToFloat64(m.viewers); n != 1 {
		t.Errorf("%v viewers are counted", n)
	}
	h.leave(slow) // what its handler does afterwards
	if h.join() == nil {
		t.Error("the place of the dropped viewer is not free")
	}
}

func TestHubSendsChangesOnly(t *testing.T) {
	h := newHub(8, newMetrics(nil), func() {})
	if err := h.publish("groups", "nobody watches"); err != nil || h.has("groups") {
		t.Errorf("a state was kept that nobody keeps fresh (error %v)", err)
	}
	v := h.join()
	for _, state := range []string{"a", "a", "b"} {
		if err := h.publish("groups", state); err != nil {
			t.Fatal(err)
		}
	}
	late := h.join()
	for who, want := range map[*viewer][]string{v: {`"a"`, `"b"`}, late: {`"b"`}} {
		for _, w := range want {
			if got := string(<-who.events); got != "event: groups\ndata: "+w+"\n\n" {
				t.Errorf("got %q, want %s", got, w)
			}
		}
		if len(who.events) != 0 {
			t.Errorf("%d events more", len(who.events))
		}
	}
	if err := h.publish("groups", func() {}); err == nil || !strings.Contains(err.Error(), "groups") {
		t.Errorf("a state that is no JSON: %v", err)
	}
	h.leave(v)
	h.leave(late)
	if h.has("groups") {
		t.Error("the state outlives its last viewer")
	}
}

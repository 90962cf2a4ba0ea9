package e2e

import (
	"net/http"
	"testing"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
)

// TestDrain takes one of two core processes out of rotation under people who chat over
// WebSockets: those who are connected to it are asked to come back and do so at the other
// one, nobody new comes, nothing is missed or comes twice, and no socket is cut.
func TestDrain(t *testing.T) {
	s := newChatStack(t, 2)
	crowd := newChatters(t, s.url, 8)
	asked := pressREST(t, s.url)
	first, second := s.cores[0], s.cores[1]
	sockets := func(p coreProcess) int { return int(p.metric(t, "core_sockets", "")) }
	crowd.chat(t, 10)
	if sockets(first) == 0 || sockets(second) == 0 { // least request: eight do not all land at one
		t.Fatalf("%d and %d sockets", sockets(first), sockets(second))
	}
	there := sockets(first)

	order := ctlapi.DrainOrder{Service: "core", Pool: "baseline", Instance: first.listen, Reason: "new kernel"}
	if _, err := s.api.Drain(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	crowd.chat(t, 10)
	waitFor(t, "all sockets at the other one", func() bool { return sockets(first) == 0 && sockets(second) == len(crowd.sessions) })
	served := first.metric(t, "core_requests_total", "")
	crowd.chat(t, 10)
	for range 100 { // beside those that are asked all the time
		resp, err := http.Get(s.url + "/v1/sessions")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if got := first.metric(t, "core_requests_total", ""); got != served {
		t.Errorf("%v requests came to it", got-served)
	}
	if got := int(first.metric(t, "core_moves_asked_total", "drain")); got < there || sockets(first) != 0 {
		t.Errorf("%d of %d were asked, %d are there", got, there, sockets(first))
	}

	if _, err := s.api.Undrain(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "requests come to it again", func() bool { return first.metric(t, "core_requests_total", "") > served })
	waitFor(t, "everything heard", func() bool { return !crowd.behind() })
	crowd.check(t)
	if total, failed := asked(); failed != 0 || total < 50 {
		t.Errorf("%d of %d requests failed", failed, total)
	}
}

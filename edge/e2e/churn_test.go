package e2e

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/observability/semconv"
)

var (
	churnChanges = flag.Int("changes", 60, "policy and group changes of the churn test")
	churnSockets = flag.Int("sockets", 30, "open WebSockets of the churn test")
)

// churnClients are three groups, as in `tracegate load circle`.
var churnClients = []request{
	{host: "search.test"},
	{host: "chat.test", header: header("X-Env", "canary")},
	{host: "chat.test"},
}

// load is what the clients of the churn test met.
type load struct {
	requests, bad, failed atomic.Int64 // REST: all, not 200, no answer
	messages, dropped     atomic.Int64 // WebSocket: echoes, sockets that ended
	mu                    sync.Mutex
	firstTrouble          string
}

func (l *load) trouble(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.firstTrouble == "" {
		l.firstTrouble = fmt.Sprintf(format, args...)
	}
}

// testChurn changes routes and policy all the time under REST and WebSocket load:
// no socket may drop, no request may fail, no listener may be touched.
func testChurn(t *testing.T, s *stack) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var l load
	var clients sync.WaitGroup
	for i := range *churnSockets {
		conn := s.dial(churnClients[i%len(churnClients)])
		clients.Go(func() { l.talk(ctx, conn) })
	}
	for i := range 6 {
		clients.Go(func() { l.ask(ctx, s, churnClients[i%len(churnClients)]) })
	}
	waitFor(t, "load on every client", func() bool {
		return l.messages.Load() > int64(*churnSockets) && l.requests.Load() > 100
	})

	before, memory := s.counters(), s.stat(`^server\.memory_allocated$`)
	start := time.Now()
	var moves, policies []time.Duration
	for i := range *churnChanges {
		begin := time.Now()
		if i%2 == 0 {
			s.toggleMove()
			s.apply()
			moves = append(moves, time.Since(begin))
		} else {
			s.policy = strings.Replace(testPolicy, "  cohorts:\n", fmt.Sprintf("  cohorts:\n    - {name: wave, match: {header: {name: x-wave, exact: w%d}}}\n", i), 1)
			s.apply()
			policies = append(policies, time.Since(begin))
		}
	}
	took := time.Since(start)
	// Envoy acknowledges a filter before its workers have it, and counts it after.
	reloads := before.ecds + uint64(len(policies))
	waitFor(t, "the last filter update", func() bool { return s.counters().ecds >= reloads })
	after := s.counters()
	// All sockets still talk after the last change.
	talked := l.messages.Load()
	waitFor(t, "sockets after the churn", func() bool { return l.messages.Load() > talked+int64(*churnSockets) })
	stop()
	clients.Wait()

	t.Logf("%d changes in %.1fs: applied p50/p99/max move %s, policy %s; %d requests, %d bad, %d unanswered; %d sockets, %d messages, %d dropped; listener_modified %d, filter updates %d, route updates %d; VMs created %d, active %d; Envoy heap %d -> %d MiB",
		*churnChanges, took.Seconds(), spread(moves), spread(policies), l.requests.Load(), l.bad.Load(), l.failed.Load(), *churnSockets, l.messages.Load(), l.dropped.Load(),
		after.listeners.Modified, after.ecds-before.ecds, after.routes-before.routes,
		s.stat(`^wasm\.envoy\.wasm\.runtime\.v8\.created$`), s.stat(`^wasm\.envoy\.wasm\.runtime\.v8\.active$`),
		memory>>20, s.stat(`^server\.memory_allocated$`)>>20)
	if l.bad.Load()+l.failed.Load()+l.dropped.Load() != 0 {
		t.Errorf("trouble, first: %s", l.firstTrouble)
	}
	if after.listeners != before.listeners {
		t.Errorf("listeners were touched:\nbefore %+v\nafter  %+v", before.listeners, after.listeners)
	}
	if got, want := after.ecds-before.ecds, uint64(len(policies)); got != want {
		t.Errorf("%d filter updates for %d policy changes", got, want)
	}
	if after.routes-before.routes < uint64(len(moves)) {
		t.Errorf("%d route updates for %d moves", after.routes-before.routes, len(moves))
	}
}

func (s *stack) toggleMove() {
	if _, moved := s.moves[canary.ID()]; moved {
		delete(s.moves, canary.ID())
	} else {
		s.moves[canary.ID()] = semconv.PoolIsolated
	}
}

func (s *stack) dial(r request) *websocket.Conn {
	s.t.Helper()
	h := r.header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("Host", r.host)
	conn, resp, err := (&websocket.Dialer{HandshakeTimeout: 10 * time.Second}).DialContext(s.t.Context(), "ws://"+s.edge.Listen+"/v1/ws", h)
	if err != nil {
		s.t.Fatalf("dial: %v", err)
	}
	resp.Body.Close()
	return conn
}

// talk sends and expects its echo until ctx is done.
func (l *load) talk(ctx context.Context, conn *websocket.Conn) {
	defer conn.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		want := fmt.Sprint(n)
		_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		err := conn.WriteMessage(websocket.TextMessage, []byte(want))
		var got []byte
		if err == nil {
			_, got, err = conn.ReadMessage()
		}
		if err != nil || string(got) != want {
			l.dropped.Add(1)
			l.trouble("socket: message %d: %q, %v", n, got, err)
			return
		}
		l.messages.Add(1)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask sends requests one after the other until ctx is done.
func (l *load) ask(ctx context.Context, s *stack, r request) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, _, err := s.try(r)
		l.requests.Add(1)
		switch {
		case err != nil:
			l.failed.Add(1)
			l.trouble("request: %v", err)
		case resp.StatusCode != http.StatusOK:
			l.bad.Add(1)
			l.trouble("request: status %d", resp.StatusCode)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "-"
	}
	slices.Sort(d)
	at := func(q float64) time.Duration { return d[int(q*float64(len(d)-1))].Round(100 * time.Microsecond) }
	return fmt.Sprintf("%s/%s/%s", at(0.5), at(0.99), at(1))
}

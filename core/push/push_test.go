package push_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/push"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// rig is a store, presence and a sender in memory.
type rig struct {
	*push.Pusher
	reg *prometheus.Registry

	mu       sync.Mutex
	now      time.Time
	messages []chat.Unpushed // of each conversation
	pushed   map[string]int64
	devices  []chat.PushDevice
	alone    map[string]string // the one user of a conversation
	online   map[string]bool
	unknown  error // of presence
	fail     map[string]error
	sent     []string
	tried    int
	forgot   []string
}

func newRig(t *testing.T, devices int, edit ...func(*push.Config)) *rig {
	t.Helper()
	r := &rig{
		reg: prometheus.NewRegistry(), now: at, pushed: map[string]int64{}, alone: map[string]string{}, online: map[string]bool{}, fail: map[string]error{},
	}
	for i := range devices {
		name := fmt.Sprintf("u%03d", i)
		r.devices = append(r.devices, chat.PushDevice{Session: "s-" + name, User: chat.User{ID: name, Name: name}, Platform: "fcm", Token: "t-" + name})
	}
	cfg := push.DefaultConfig()
	cfg.Backoff, cfg.Patience = time.Millisecond, time.Minute
	for _, e := range edit {
		e(&cfg)
	}
	var err error
	r.Pusher, err = push.New(cfg, r, r, r, func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now }, r.reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// impatient ends a batch soon that cannot be sent.
func impatient(c *push.Config) { c.Patience = 100 * time.Millisecond }

func (r *rig) add(n int) {
	for range n {
		r.messages = append(r.messages, chat.Unpushed{Seq: int64(len(r.messages) + 1), SenderID: "u000", Sender: "u000", Text: "x", SentAt: at})
	}
}

func (r *rig) Unpushed(_ context.Context, conversation string, after time.Time, limit int) (out []chat.Unpushed, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.messages {
		if m.Seq > r.pushed[conversation] && m.SentAt.After(after) && len(out) < limit {
			out = append(out, m)
		}
	}
	return out, nil
}

func (r *rig) Pushed(_ context.Context, conversation string, seq int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pushed[conversation] = max(r.pushed[conversation], seq)
	return nil
}

func (r *rig) PushDevices(_ context.Context, conversation string, _ int64, sender, after string, limit int) (out []chat.PushDevice, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.devices {
		if only := r.alone[conversation]; only != "" && d.User.ID != only {
			continue
		}
		if d.User.ID != sender && d.Session > after && len(out) < limit {
			out = append(out, d)
		}
	}
	return out, nil
}

func (r *rig) ForgetPush(_ context.Context, session, token string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgot = append(r.forgot, session+" "+token)
	return nil
}

func (r *rig) Online(_ context.Context, user string) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.online[user] {
		return 1, r.unknown
	}
	return 0, r.unknown
}

func (r *rig) Send(_ context.Context, n push.Notification) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tried++
	if err := r.fail[n.Device.User.ID]; err != nil {
		return err
	}
	r.sent = append(r.sent, fmt.Sprintf("%s %d", n.Device.User.ID, n.Message.Seq))
	return nil
}

func (r *rig) handle(t *testing.T, want ...string) {
	t.Helper()
	r.batch(t, "c1")
	r.were(t, want...)
}

func (r *rig) batch(t *testing.T, conversations ...string) {
	t.Helper()
	if err := r.Handle(t.Context(), conversations); err != nil {
		t.Fatal(err)
	}
}

// were says what has been sent.
func (r *rig) were(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(r.sent)
	slices.Sort(want)
	if diff := cmp.Diff(want, r.sent); diff != "" {
		t.Error(diff)
	}
	r.sent = nil
}

func (r *rig) count(t *testing.T, result string) (n float64) {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "core_push_total" && m.GetLabel()[0].GetValue() == result {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// TestOnceForEachDeviceAndMessage: whoever is away and did not send it, however often the
// log says so.
func TestOnceForEachDeviceAndMessage(t *testing.T) {
	r := newRig(t, 4)
	r.online["u003"] = true
	r.add(2)
	r.handle(t, "u001 1", "u001 2", "u002 1", "u002 2")
	r.handle(t)
	r.online["u003"] = false
	r.add(1)
	r.handle(t, "u001 3", "u002 3", "u003 3")
	if r.count(t, "sent") != 7 || r.count(t, "online") != 2 {
		t.Errorf("sent %v, online %v", r.count(t, "sent"), r.count(t, "online"))
	}
}

// TestPages: more messages and devices than are read at a time.
func TestPages(t *testing.T) {
	r := newRig(t, 1000)
	r.add(1)
	if err := r.Handle(t.Context(), []string{"c1"}); err != nil || len(r.sent) != 999 {
		t.Errorf("%v, %d sent", err, len(r.sent))
	}
	r = newRig(t, 2)
	r.add(250)
	if err := r.Handle(t.Context(), []string{"c1"}); err != nil || len(r.sent) != 250 {
		t.Errorf("%v, %d sent", err, len(r.sent))
	}
}

// TestDeadReceiver: the batch comes again, nothing of it is lost, and who has had the message
// does not get it twice.
func TestDeadReceiver(t *testing.T) {
	for name, down := range map[string]error{"no answer": errors.New("down"), "busy": fmt.Errorf("%w: down", push.ErrBusy)} {
		r := newRig(t, 3, impatient)
		r.add(1)
		for i := range 2 {
			r.fail["u001"], r.fail["u002"] = down, down
			if err := r.Handle(t.Context(), []string{"c1"}); err == nil || !strings.Contains(err.Error(), "down") {
				t.Errorf("%s: got %v", name, err)
			}
			if n := r.count(t, "retried"); n < 2*float64(i+1) {
				t.Errorf("%s: it was tried again %v times", name, n)
			}
		}
		delete(r.fail, "u001")
		r.fail["u002"] = fmt.Errorf("%w: still", push.ErrBusy)
		if err := r.Handle(t.Context(), []string{"c1"}); err == nil {
			t.Errorf("%s: no error", name)
		}
		delete(r.fail, "u002")
		r.handle(t, "u001 1", "u002 1")
	}
}

// TestDeviceThatIsNotReached: it holds up others of its batch no longer than a try, and is
// given up when they were reached.
func TestDeviceThatIsNotReached(t *testing.T) {
	r := newRig(t, 4)
	r.alone["bad"] = "u001"
	r.fail["u001"] = errors.New("500")
	r.add(1)
	r.batch(t, "bad", "c1")
	r.were(t, "u002 1", "u003 1")
	if n := r.count(t, "failed"); n != 2 {
		t.Errorf("%v are given up", n)
	}
	tried := r.tried
	r.add(1)
	r.batch(t, "bad", "c1") // it is known by now
	r.were(t, "u002 2", "u003 2")
	if n := r.count(t, "failed"); n != 4 || r.tried != tried+2 {
		t.Errorf("%v are given up, after %d tries", n, r.tried-tried)
	}
	delete(r.fail, "u001")
	r.now = r.now.Add(time.Minute)
	r.add(1)
	r.batch(t, "bad")
	r.were(t, "u001 3")
}

// TestDeviceThatIsNotReachedIsAlone: what comes after it shows whose fault it is.
func TestDeviceThatIsNotReachedIsAlone(t *testing.T) {
	r := newRig(t, 2, impatient)
	r.alone["bad"], r.fail["u001"] = "u001", errors.New("500")
	r.add(1)
	if err := r.Handle(t.Context(), []string{"bad"}); err == nil {
		t.Error("it was given up, though nobody was reached")
	}
	r = newRig(t, 3)
	r.alone["bad"], r.alone["good"], r.fail["u001"] = "u001", "u002", errors.New("500")
	r.add(1)
	r.batch(t, "bad", "good")
	r.were(t, "u002 1")
}

// TestReceiverThatIsAwayIsNotStormed: not everybody is tried in each pass.
func TestReceiverThatIsAwayIsNotStormed(t *testing.T) {
	r := newRig(t, 1000, impatient, func(c *push.Config) { c.Backoff = time.Hour })
	for _, d := range r.devices {
		r.fail[d.User.ID] = errors.New("down")
	}
	r.add(3)
	if err := r.Handle(t.Context(), []string{"c1", "c2", "c3"}); err == nil || r.tried > 3*push.DefaultConfig().Parallel {
		t.Errorf("%v, after %d tries", err, r.tried)
	}
	clear(r.fail)
	r.tried = 0
	r.batch(t, "c1", "c2", "c3")
	if r.tried != 3*3*999 || len(r.sent) != r.tried {
		t.Errorf("%d of %d sent", len(r.sent), r.tried)
	}
}

// TestTooOld: what is not worth a notification any more is dropped, counted.
func TestTooOld(t *testing.T) {
	r := newRig(t, 2, impatient)
	r.add(1)
	r.now = at.Add(2 * time.Hour)
	r.handle(t)
	r.now = at
	r.fail["u001"] = errors.New("down")
	if err := r.Handle(t.Context(), []string{"c1"}); err == nil {
		t.Error("no error")
	}
	r.messages[0].SentAt = at.Add(-time.Hour - time.Second)
	clear(r.pushed)
	r.handle(t)
}

// TestReceiverSaysNo: a token that is gone is forgotten; what is refused is dropped.
func TestReceiverSaysNo(t *testing.T) {
	r := newRig(t, 4)
	r.fail["u001"], r.fail["u002"] = fmt.Errorf("%w: 410", push.ErrGone), push.ErrRefused
	r.add(1)
	r.handle(t, "u003 1")
	if !slices.Equal(r.forgot, []string{"s-u001 t-u001"}) || r.count(t, "gone") != 1 || r.count(t, "refused") != 1 {
		t.Errorf("forgot %v", r.forgot)
	}
}

// TestPresenceUnknown: rather a notification too many than none.
func TestPresenceUnknown(t *testing.T) {
	r := newRig(t, 2)
	r.online["u001"], r.unknown = true, errors.New("redis is away")
	r.add(1)
	r.handle(t, "u001 1")
}

func TestConfigNamesTheKey(t *testing.T) {
	for key, edit := range map[string]func(*push.Config){
		"max_age":  func(c *push.Config) { c.MaxAge = 0 },
		"patience": func(c *push.Config) { c.Patience = 0 },
		"parallel": func(c *push.Config) { c.Parallel = 0 },
		"backoff":  func(c *push.Config) { c.Backoff = 0 },
	} {
		cfg := push.DefaultConfig()
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

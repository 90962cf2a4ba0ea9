package account_test

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/protocol"
)

func (r *rig) login(t *testing.T, device string) account.Session {
	t.Helper()
	if _, err := r.Register(t.Context(), "ann", password, ""); err != nil && code(err) != protocol.CodeAlreadyExists {
		t.Fatal(err)
	}
	n, err := r.Login(t.Context(), "ann", password, device)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (r *rig) good(n account.Session) bool {
	_, err := r.Verify(n.Token)
	return err == nil
}

func (r *rig) refresh(t *testing.T, n account.Session) account.Session {
	t.Helper()
	next, err := r.Refresh(t.Context(), n.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// TestRefreshRotates: each refresh token is good once, and gives tokens of the same
// session and user that live from then on.
func TestRefreshRotates(t *testing.T) {
	r := newRig(t, nil)
	first := r.login(t, "phone")
	r.now = r.now.Add(20 * time.Minute)
	if r.good(first) {
		t.Error("an access token outlives its time")
	}
	second := r.refresh(t, first)
	id, err := r.Verify(second.Token)
	if err != nil || id.User != first.User || id.Session != first.ID || second.ID != first.ID || second.RefreshToken == first.RefreshToken {
		t.Errorf("%v %+v", err, second)
	}
	if !second.ExpiresAt.Equal(r.now.Add(15*time.Minute)) || !second.RefreshExpires.Equal(r.now.Add(30*24*time.Hour)) || !id.SessionEnds.Equal(second.RefreshExpires) {
		t.Errorf("got %+v", second)
	}
	r.now = r.now.Add(29 * 24 * time.Hour)
	third := r.refresh(t, second)
	r.now = r.now.Add(30*24*time.Hour + time.Second)
	if _, err := r.Refresh(t.Context(), third.RefreshToken); code(err) != protocol.CodeUnauthenticated {
		t.Errorf("after a month: %v", err)
	}
	if list, err := r.Sessions(t.Context(), id); err != nil || len(list) != 0 {
		t.Errorf("%v %+v", err, list)
	}
}

// TestLostAnswerIsRepeated: who asks again within grace gets the same successor, not a
// second one.
func TestLostAnswerIsRepeated(t *testing.T) {
	r := newRig(t, nil)
	first := r.login(t, "")
	lost := r.refresh(t, first)
	r.now = r.now.Add(9 * time.Second)
	again := r.refresh(t, first)
	if again.RefreshToken != lost.RefreshToken || !r.good(again) || !r.good(lost) {
		t.Errorf("%+v, then %+v", lost, again)
	}
	r.now = r.now.Add(2 * time.Second) // 11 s after the rotation: a repetition does not prolong it
	if _, err := r.Refresh(t.Context(), first.RefreshToken); code(err) != protocol.CodeUnauthenticated {
		t.Errorf("after grace: %v", err)
	}
	if r.good(again) || !slices.Equal(r.ended, []string{first.ID}) {
		t.Errorf("the session goes on; ended %v", r.ended)
	}
}

// TestReuseEndsTheFamily is RFC 9700, 4.14.2: whichever of thief and owner is second, all
// that came of the token ends.
func TestReuseEndsTheFamily(t *testing.T) {
	for _, second := range []string{"thief", "owner"} {
		t.Run(second+" is second", func(t *testing.T) {
			r := newRig(t, func(c *account.Config) { c.RefreshGrace = 0 })
			other := r.login(t, "other")
			stolen := r.login(t, "phone")
			first := r.refresh(t, stolen)
			if second == "thief" {
				first = r.refresh(t, first)
			}
			if _, err := r.Refresh(t.Context(), stolen.RefreshToken); code(err) != protocol.CodeUnauthenticated {
				t.Errorf("a rotated token: %v", err)
			}
			if _, err := r.Refresh(t.Context(), first.RefreshToken); code(err) != protocol.CodeUnauthenticated {
				t.Errorf("the newest token of the family: %v", err)
			}
			if r.good(first) || r.good(stolen) || !r.good(other) {
				t.Errorf("good: first %v, stolen %v, other %v", r.good(first), r.good(stolen), r.good(other))
			}
			if !slices.Equal(r.ended, []string{stolen.ID}) || !slices.Equal(r.told, []string{stolen.User.ID}) {
				t.Errorf("sockets closed %v, told %v", r.ended, r.told)
			}
			r.refresh(t, other)
		})
	}
}

// TestCopyWithinGraceIsFoundLater: a copy that is used within grace gives nothing but the
// token that the owner has, so that the next use of it by the other one is reuse.
func TestCopyWithinGraceIsFoundLater(t *testing.T) {
	r := newRig(t, nil)
	first := r.login(t, "")
	owner, thief := r.refresh(t, first), r.refresh(t, first)
	r.now = r.now.Add(14 * time.Minute)
	r.refresh(t, thief)
	r.now = r.now.Add(time.Minute)
	if _, err := r.Refresh(t.Context(), owner.RefreshToken); code(err) != protocol.CodeUnauthenticated || r.good(thief) {
		t.Errorf("%v, thief goes on: %v", err, r.good(thief))
	}
}

// TestOneOfManyWins: of uses at once one rotates; without grace any other one is reuse.
func TestOneOfManyWins(t *testing.T) {
	r := newRig(t, nil)
	n := r.login(t, "")
	var mu sync.Mutex
	tokens := map[string]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			next, err := r.Refresh(t.Context(), n.RefreshToken)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			tokens[next.RefreshToken]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(tokens) != 1 {
		t.Errorf("the family has forked: %v", tokens)
	}
}

// TestMadeUpRefreshTokens end nobody's session.
func TestMadeUpRefreshTokens(t *testing.T) {
	r := newRig(t, nil)
	n := r.login(t, "")
	flipped := func(i int) string {
		b, err := base64.RawURLEncoding.DecodeString(n.RefreshToken)
		if err != nil {
			t.Fatal(err)
		}
		b[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(b)
	}
	for name, token := range map[string]string{
		"empty": "", "garbage": "?", "an access token": n.Token, "short": n.RefreshToken[:40], "long": n.RefreshToken + "AAAA",
		"another session": flipped(0), "another generation": flipped(23), "another MAC": flipped(55), "huge": strings.Repeat("A", 1<<20),
		"of another key": newRig(t, nil).login(t, "").RefreshToken,
	} {
		if _, err := r.Refresh(t.Context(), token); code(err) != protocol.CodeUnauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !r.good(n) {
		t.Error("the session has ended")
	}
	r.refresh(t, n)
}

func TestLogout(t *testing.T) {
	r := newRig(t, nil)
	a, b, c, d := r.login(t, "a"), r.login(t, "b"), r.login(t, "c"), r.login(t, "d")
	id, err := r.Verify(a.Token)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.Sessions(t.Context(), id)
	var devices []string
	for _, n := range list {
		devices = append(devices, n.Device)
	}
	slices.Sort(devices)
	if !slices.Equal(devices, []string{"a", "b", "c", "d"}) || err != nil {
		t.Errorf("%v %v", devices, err)
	}
	if err := r.End(t.Context(), id, b.ID); err != nil {
		t.Error(err)
	}
	if err := r.End(t.Context(), id, b.ID); code(err) != protocol.CodeNotFound {
		t.Errorf("ended twice: %v", err)
	}
	r.now = r.now.Add(20 * time.Minute) // c's access token is over, its refresh token is not
	if err := r.Logout(t.Context(), c.Token, c.RefreshToken); err != nil {
		t.Error(err)
	}
	d = r.refresh(t, d)
	if err := r.Logout(t.Context(), d.Token, ""); err != nil {
		t.Error(err)
	}
	if err := r.Logout(t.Context(), "", "nonsense"); err != nil {
		t.Error(err)
	}
	if !slices.Equal(r.ended, []string{b.ID, c.ID, d.ID}) || r.good(d) {
		t.Errorf("ended %v", r.ended)
	}
	eve, err := r.Register(t.Context(), "eve", password, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.End(t.Context(), account.Identity{User: eve}, a.ID); code(err) != protocol.CodeNotFound {
		t.Errorf("another's session: %v", err)
	}
	a = r.refresh(t, a)
	if err := r.EndAll(t.Context(), id); err != nil || r.good(a) {
		t.Errorf("%v, good %v", err, r.good(a))
	}
}

// TestSessionsAreBounded: the one that was not used for longest makes room.
func TestSessionsAreBounded(t *testing.T) {
	r := newRig(t, func(c *account.Config) { c.MaxSessions = 2 })
	a := r.login(t, "a")
	r.now = r.now.Add(time.Second)
	b := r.login(t, "b")
	r.now = r.now.Add(time.Second)
	a = r.refresh(t, a)
	r.now = r.now.Add(time.Second)
	c := r.login(t, "c")
	if !r.good(a) || r.good(b) || !r.good(c) {
		t.Errorf("good: a %v, b %v, c %v", r.good(a), r.good(b), r.good(c))
	}
}

func TestChangePassword(t *testing.T) {
	r := newRig(t, nil)
	mine, other := r.login(t, "mine"), r.login(t, "other")
	id, err := r.Verify(mine.Token)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		old, fresh string
		code       protocol.Code
		field      string
	}{
		{"wrong horse", "battery staple", protocol.CodePermissionDenied, "old"},
		{"x", "battery staple", protocol.CodeInvalidArgument, "old"},
		{password, "x", protocol.CodeInvalidArgument, "new"},
	} {
		err := r.ChangePassword(t.Context(), id, bad.old, bad.fresh)
		if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != bad.code || e.Field != bad.field || !strings.HasPrefix(e.Message, bad.field+" ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := r.ChangePassword(t.Context(), id, password, "battery staple"); err != nil {
		t.Fatal(err)
	}
	if !r.good(mine) || r.good(other) {
		t.Errorf("good: mine %v, other %v", r.good(mine), r.good(other))
	}
	if _, err := r.Login(t.Context(), "ann", password, ""); code(err) != protocol.CodeUnauthenticated {
		t.Errorf("old password: %v", err)
	}
	if _, err := r.Login(t.Context(), "ann", "battery staple", ""); err != nil {
		t.Errorf("new password: %v", err)
	}
	r.refresh(t, mine)
}

// TestEndsReachOtherProcesses: a process learns what another one has ended, by the clock
// or by being told, also after a time without the store, and one that starts later too.
func TestEndsReachOtherProcesses(t *testing.T) {
	here := newRig(t, nil)
	k := key(t)
	fast := func(c *account.Config) { c.EndedEvery = 5 * time.Millisecond }
	here, there := onStore(t, here.users.Store, k, nil), onStore(t, here.users.Store, k, fast)
	a, b := here.login(t, "a"), here.login(t, "b")
	id, err := here.Verify(a.Token)
	if err != nil {
		t.Fatal(err)
	}
	if !there.good(a) || !there.good(b) {
		t.Fatal("one process's tokens are not good at the other")
	}
	if err := here.End(t.Context(), id, b.ID); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	there.users.fail(errors.New("down"))
	go func() { done <- there.Run(ctx) }()
	there.until(t, "a look that fails", func() bool { return there.metric(t, "core_account_look_errors_total") > 0 })
	if !there.good(b) {
		t.Error("it knows what it cannot read")
	}
	there.users.fail(nil)
	there.until(t, "the end", func() bool { return !there.good(b) })
	closed := func() []string { there.mu.Lock(); defer there.mu.Unlock(); return slices.Clone(there.ended) }
	there.until(t, "the sockets closed", func() bool { return slices.Equal(closed(), []string{b.ID}) })
	looks := there.users.looks.Load()
	there.until(t, "some more looks", func() bool { there.Look(); return there.users.looks.Load() > looks+3 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !there.good(a) || len(closed()) != 1 {
		t.Errorf("a is good: %v; closed %v", there.good(a), closed())
	}
	late := onStore(t, here.users.Store, k, nil)
	if err := late.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if late.good(b) || !late.good(a) {
		t.Error("a process that starts later does not know")
	}
}

func TestConfigNamesTheKey(t *testing.T) {
	for key, edit := range map[string]func(*account.Config){
		"bcrypt_cost":   func(c *account.Config) { c.BcryptCost = 3 },
		"hashers":       func(c *account.Config) { c.Hashers = 0 },
		"hash_queue":    func(c *account.Config) { c.HashQueue = -1 },
		"hash_wait":     func(c *account.Config) { c.HashWait = 0 },
		"token_ttl":     func(c *account.Config) { c.TokenTTL = 0 },
		"session_ttl":   func(c *account.Config) { c.SessionTTL = c.TokenTTL },
		"refresh_grace": func(c *account.Config) { c.RefreshGrace = -1 },
		"max_sessions":  func(c *account.Config) { c.MaxSessions = 0 },
		"ended_every":   func(c *account.Config) { c.EndedEvery = 0 },
	} {
		cfg := account.DefaultConfig()
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

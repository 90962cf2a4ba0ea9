package core_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
)

// device logs a user in once more.
func (n *node) device(name, device string) *client.User {
	n.t.Helper()
	cfg := client.DefaultConfig()
	cfg.Address, cfg.Timeout, cfg.Device = n.url, 20*time.Second, device
	c, err := client.New(cfg)
	must(n.t, err)
	n.t.Cleanup(c.Close)
	u, _, err := c.Login(n.t.Context(), name, password)
	must(n.t, err)
	return u
}

// run connects a device; the channel has how that ended.
func run(t *testing.T, u *client.User) (*client.Session, <-chan error) {
	t.Helper()
	ended := make(chan error, 1)
	s := u.Session(client.SessionConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { ended <- s.Run(ctx) }()
	must(t, s.WaitReady(t.Context()))
	return s, ended
}

// refused says that a call was refused because the session has ended.
func refused(err error) bool {
	e, ok := errors.AsType[*protocol.Error](err)
	return ok && e.Code == protocol.CodeUnauthenticated
}

// TestLogoutHoldsEverywhere: a device that is logged out on one process is so on another
// one within seconds, its open connection and its access token included, whether Redis
// tells or only the database; the user's other devices go on.
func TestLogoutHoldsEverywhere(t *testing.T) {
	for _, redis := range []bool{true, false} {
		t.Run(map[bool]string{true: "with redis", false: "without redis"}[redis], func(t *testing.T) {
			w := newWorld(t)
			here, there := w.start0(), w.start(w.config("canary"))
			here.person("ann")
			phone, laptop := here.device("ann", "phone"), there.device("ann", "laptop")
			_, phoneEnded := run(t, phone)
			live, laptopEnded := run(t, laptop)
			old := there.login("ann")
			if !redis {
				w.stopRedis()
			}
			devices, _, err := phone.Devices(t.Context())
			must(t, err)
			begun := time.Now()
			for _, d := range devices {
				if d.Device != "phone" {
					_, err := phone.LogoutDevice(t.Context(), d.ID)
					must(t, err)
				}
			}
			select {
			case err := <-laptopEnded:
				if e, ok := errors.AsType[*client.CloseError](err); !ok || e.Code != protocol.CloseExpired {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("the connection goes on")
			}
			if took := time.Since(begun); took > 10*time.Second { // a second, on a machine that is not busy
				t.Errorf("took %v", took)
			}
			deadline := time.Now().Add(time.Minute)
			for !refused(there.call("GET", "/v1/me", old, nil, nil)) {
				if time.Now().After(deadline) {
					t.Fatal("the access token goes on")
				}
			}
			if err := live.WaitReady(t.Context()); err == nil {
				t.Error("it has connected again")
			}
			_, _, err = phone.Me(t.Context())
			must(t, err)
			select {
			case err := <-phoneEnded:
				t.Errorf("the other device was closed: %v", err)
			default:
			}
		})
	}
}

// TestSessionsByREST: profile, password and devices as clients see them.
func TestSessionsByREST(t *testing.T) {
	n := newWorld(t).start0()
	n.person("ann")
	n.person("bob")
	ann, other, bob := n.device("ann", "phone"), n.device("ann", "laptop"), n.device("bob", "")
	ctx, text := t.Context(), func(s string) *string { return &s }
	_, _, err := ann.SetProfile(ctx, client.ProfileChange{DisplayName: text("Ann 安"), Avatar: text("https://x.example/a.png")})
	must(t, err)
	_, _, err = ann.SetProfile(ctx, client.ProfileChange{About: text("hello")})
	must(t, err)
	p, _, err := bob.Lookup(ctx, "ann")
	if err != nil || p.DisplayName != "Ann 安" || p.Avatar != "https://x.example/a.png" || p.About != "hello" {
		t.Errorf("%v %+v", err, p)
	}
	_, _, err = ann.SetProfile(ctx, client.ProfileChange{Avatar: text("javascript:alert(1)")})
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodeInvalidArgument || e.Field != "avatar" {
		t.Errorf("a script as avatar: %v", err)
	}
	devices, _, err := ann.Devices(ctx)
	if err != nil || len(devices) != 3 || devices[0].Created.IsZero() {
		t.Errorf("%v %+v", err, devices)
	}
	for _, d := range devices {
		if d.Current != (d.Device == "phone") {
			t.Errorf("got %+v", d)
		}
	}
	_, err = bob.LogoutDevice(ctx, devices[0].ID)
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodeNotFound || e.Field != "id" {
		t.Errorf("another's device: %v", err)
	}
	_, err = ann.ChangePassword(ctx, "wrong horse", "battery staple")
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodePermissionDenied || e.Field != "old" {
		t.Errorf("a wrong password: %v", err)
	}
	_, err = ann.ChangePassword(ctx, password, "battery staple")
	must(t, err)
	if _, _, err := other.Me(ctx); !refused(err) {
		t.Errorf("another device after a change of the password: %v", err)
	}
	_, err = ann.LogoutAll(ctx)
	must(t, err)
	if _, _, err := ann.Me(ctx); !refused(err) {
		t.Errorf("after all were logged out: %v", err)
	}
}

// TestRefreshByREST: the token of the body and that of the cookie, and what a page is told.
func TestRefreshByREST(t *testing.T) {
	n := newWorld(t).start0()
	n.person("ann")
	var first, second struct {
		ID, Token    string
		RefreshToken string `json:"refresh_token"`
	}
	must(t, n.call("POST", "/v1/sessions", "", map[string]string{"name": "ann", "password": password, "device": "x"}, &first))
	must(t, n.call("POST", "/v1/sessions/refresh", "", map[string]string{"refresh_token": first.RefreshToken}, &second))
	if second.ID != first.ID || second.RefreshToken == first.RefreshToken || second.Token == first.Token {
		t.Errorf("%+v, then %+v", first, second)
	}
	var page struct {
		Token        string
		RefreshToken string `json:"refresh_token"`
	}
	must(t, n.raw("POST", n.url+"/v1/sessions/refresh", "", nil, http.Header{"Cookie": {"tracegate_refresh=" + second.RefreshToken}, "Origin": {n.url}}, &page))
	if page.Token == "" || page.RefreshToken != "" {
		t.Errorf("a page's scripts get %+v", page)
	}
	for name, body := range map[string]any{"none": nil, "garbage": map[string]string{"refresh_token": "x"}, "an access token": map[string]string{"refresh_token": first.Token}} {
		if err := n.call("POST", "/v1/sessions/refresh", "", body, nil); !refused(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, n.raw("DELETE", n.url+"/v1/sessions/current", "", nil, http.Header{"Cookie": {"tracegate_refresh=" + second.RefreshToken}}, nil))
	if err := n.call("GET", "/v1/me", page.Token, nil, nil); !refused(err) {
		t.Errorf("after a logout by the refresh token alone: %v", err)
	}
}

// TestAccessTokenEndsTheSocketDoesNot: a connection lives as long as its session.
func TestAccessTokenEndsTheSocketDoesNot(t *testing.T) {
	w := newWorld(t)
	cfg := w.config("baseline")
	cfg.Account.TokenTTL, cfg.Account.SessionTTL = time.Second, 4*time.Second
	n := w.start(cfg)
	ann := n.person("ann")
	c, _ := n.connect(ann, newSeen())
	deadline := time.Now().Add(time.Minute)
	for !refused(n.call("GET", "/v1/me", ann, nil, nil)) {
		if time.Now().After(deadline) {
			t.Fatal("the token does not end")
		}
	}
	select {
	case <-c.closed:
		t.Errorf("closed with the token: %v", c.err)
	default:
	}
	select {
	case <-c.closed:
		if !websocket.IsCloseError(c.err, protocol.CloseExpired) {
			t.Errorf("closed with %v", c.err)
		}
	case <-time.After(time.Minute):
		t.Error("the connection outlives its session")
	}
}

// TestFriends: both users' devices are told on their processes, and a block ends it.
func TestFriends(t *testing.T) {
	w := newWorld(t)
	here, there := w.start0(), w.start(w.config("canary"))
	ann, bob := here.sdkUser("ann"), there.sdkUser("bob")
	ctx := t.Context()
	told := func(u *sdkUser, want protocol.Friend) {
		t.Helper()
		select {
		case s := <-u.told:
			if s.Friend == nil || *s.Friend != want {
				t.Errorf("told %+v, want %+v", s.Friend, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("never told %+v", want)
		}
	}
	// Pushes are told to connections that are live, which a message shows them to be.
	talk, _, err := ann.Open(ctx, "bob")
	must(t, err)
	for _, u := range []*sdkUser{ann, bob} {
		a, s, err := u.live.Send(ctx, protocol.Send{Conversation: talk.ID, ClientID: "m-" + u.Profile().Name, Text: "x"})
		ann.accepted(t, a, s, err)
		bob.accepted(t, a, s, err)
	}
	refusedWith := func(err error, code protocol.Code, field string) {
		t.Helper()
		if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != code || e.Field != field {
			t.Errorf("got %v", err)
		}
	}
	f, _, err := ann.AskFriend(ctx, "bob")
	if err != nil || f.State != "outgoing" {
		t.Errorf("%v %+v", err, f)
	}
	told(ann, protocol.Friend{User: "bob", State: "outgoing"})
	told(bob, protocol.Friend{User: "ann", State: "incoming"})
	_, _, err = ann.AcceptFriend(ctx, "bob")
	refusedWith(err, protocol.CodeNotFound, "name")
	f, _, err = bob.AcceptFriend(ctx, "ann")
	if err != nil || f.State != "friend" {
		t.Errorf("%v %+v", err, f)
	}
	told(ann, protocol.Friend{User: "bob", State: "friend"})
	told(bob, protocol.Friend{User: "ann", State: "friend"})
	list, _, err := ann.Friends(ctx, "friend", "", 10)
	if err != nil || len(list.Friends) != 1 || list.Friends[0].Name != "bob" || list.Next != "" {
		t.Errorf("%v %+v", err, list)
	}
	_, err = bob.Block(ctx, "ann")
	must(t, err)
	told(ann, protocol.Friend{User: "bob", State: "none"})
	told(bob, protocol.Friend{User: "ann", State: "none"})
	_, _, err = ann.AskFriend(ctx, "bob")
	refusedWith(err, protocol.CodePermissionDenied, "name")
	_, _, err = bob.AskFriend(ctx, "ann")
	refusedWith(err, protocol.CodePermissionDenied, "name")
	_, err = bob.Unblock(ctx, "ann")
	must(t, err)
	_, _, err = bob.AskFriend(ctx, "ann")
	must(t, err)
	_, err = ann.EndFriend(ctx, "bob") // declines
	must(t, err)
	if list, _, err = ann.Friends(ctx, "incoming", "", 10); err != nil || len(list.Friends) != 0 {
		t.Errorf("%v %+v", err, list)
	}
	_, _, err = ann.AskFriend(ctx, "ann")
	refusedWith(err, protocol.CodeInvalidArgument, "name")
	_, _, err = ann.AskFriend(ctx, "nobody")
	refusedWith(err, protocol.CodeNotFound, "name")
	_, _, err = ann.Friends(ctx, "enemy", "", 10)
	refusedWith(err, protocol.CodeInvalidArgument, "state")
}

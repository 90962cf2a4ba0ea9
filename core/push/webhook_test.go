package push_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/push"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
)

func TestWebhook(t *testing.T) {
	text := webhook.NewSecret([32]byte{7})
	key, err := webhook.Key(secret.Text(text))
	if err != nil {
		t.Fatal(err)
	}
	status, ids := 200, map[string]int{}
	var got push.Message
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		id := r.Header.Get("Webhook-Id")
		if r.Header.Get("Webhook-Signature") != webhook.Sign(key, id, at, body) {
			t.Error("the signature is wrong")
		}
		ids[id]++
		if err := json.Unmarshal(body, &got); err != nil {
			t.Error(err)
		}
		w.WriteHeader(status)
	}))
	defer srv.Close()
	h, err := push.NewWebhook(srv.URL, secret.Text(text), func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	n := push.Notification{
		Conversation: "c1", Message: chat.Unpushed{Seq: 7, Sender: "ann", Text: strings.Repeat("安", 200), SentAt: at},
		Device: chat.PushDevice{Session: "s1", User: chat.User{Name: "bob"}, Platform: "fcm", Token: "t1"},
	}
	for _, c := range []struct {
		status int
		want   error
	}{{200, nil}, {410, push.ErrGone}, {400, push.ErrRefused}, {301, push.ErrRefused}, {429, push.ErrBusy}, {503, push.ErrBusy}} {
		status = c.status
		if err := h.Send(t.Context(), n); !errors.Is(err, c.want) {
			t.Errorf("%d: %v", c.status, err)
		}
	}
	status = 500
	if err := h.Send(t.Context(), n); err == nil || errors.Is(err, push.ErrGone) || errors.Is(err, push.ErrRefused) || errors.Is(err, push.ErrBusy) {
		t.Errorf("500: %v", err)
	}
	if len(ids) != 1 {
		t.Errorf("the same has several ids: %v", ids)
	}
	if !utf8.ValidString(got.Data.Text) || len(got.Data.Text) > push.Preview || len(got.Data.Text) < push.Preview-3 {
		t.Errorf("text of %d bytes", len(got.Data.Text))
	}
	got.Data.Text = ""
	want := push.Message{Type: "message.created", Data: push.Data{
		User: "bob", Device: push.Device{Session: "s1", Platform: "fcm", Token: "t1"}, Conversation: "c1", Seq: 7, Sender: "ann", SentAt: at,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	n.Message.Seq = 8
	status = 200
	if err := h.Send(t.Context(), n); err != nil || len(ids) != 2 {
		t.Errorf("%v, ids %v", err, ids)
	}
	if _, err := push.NewWebhook("http://x.example/", secret.Text(text), time.Now); err == nil {
		t.Error("a URL without TLS is taken")
	}
	if _, err := push.NewWebhook(srv.URL, "short", time.Now); err == nil {
		t.Error("a bad secret is taken")
	}
}

package webhook_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
)

// TestSign uses the example of the specification's reference libraries.
func TestSign(t *testing.T) {
	key, err := webhook.Key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := webhook.Sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("got %s", got)
	}
}

func TestKey(t *testing.T) {
	if key, err := webhook.Key(secret.Text(webhook.NewSecret([32]byte{1}))); err != nil || len(key) != 32 || key[0] != 1 {
		t.Errorf("%v %v", key, err)
	}
	for _, bad := range []secret.Text{"", "whsec_", "whsec_AAAA", "whsec_?"} {
		if _, err := webhook.Key(bad); err == nil {
			t.Errorf("%s is a secret", string(bad))
		}
	}
}

func TestCheckURL(t *testing.T) {
	for text, ok := range map[string]bool{
		"https://x.example/a": true, "http://127.0.0.1:1/a": true, "http://localhost/a": true,
		"http://x.example/a": false, "ftp://127.0.0.1": false, "x": false, "https://": false, "": false,
	} {
		if err := webhook.CheckURL(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPost(t *testing.T) {
	status := 200
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			t.Error("a redirect was followed")
		}
		if r.Header.Get("Webhook-Id") != "m1" || r.Header.Get("Webhook-Timestamp") != "7" || !strings.HasPrefix(r.Header.Get("Webhook-Signature"), "v1,") {
			t.Errorf("headers %v", r.Header)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	defer srv.Close()
	client := webhook.NewClient(time.Minute)
	for _, c := range []struct {
		status    int
		ok, again bool
	}{{200, true, false}, {204, true, false}, {302, false, false}, {400, false, false}, {410, false, false}, {408, false, true}, {429, false, true}, {500, false, true}} {
		status = c.status
		got, err := webhook.Post(t.Context(), client, srv.URL, []byte("key"), "m1", time.Unix(7, 0), []byte("{}"))
		if got != c.status || (err == nil) != c.ok || webhook.Again(got) != c.again {
			t.Errorf("%d: %d %v", c.status, got, err)
		}
	}
	_, err := webhook.Post(t.Context(), client, "http://127.0.0.1:1/secret-path", nil, "m1", time.Unix(7, 0), nil)
	if err == nil || strings.Contains(err.Error(), "secret-path") {
		t.Errorf("got %v", err)
	}
}

package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/observability/console"
)

// caller is a client with cookies of its own.
type caller struct {
	t      *testing.T
	s      *served
	client *http.Client
}

func (s *served) caller(t *testing.T) *caller {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &caller{t: t, s: s, client: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// call makes a request as our page would; header overrides, an empty value removes.
func (c *caller) call(method, path, body string, header ...string) (*http.Response, string) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.s.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("X-Tracegate-Console", "1")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i+1] == "" {
			r.Header.Del(header[i])
		}
	}
	resp, err := c.client.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, string(b)
}

func (c *caller) login() *http.Response {
	c.t.Helper()
	resp, body := c.call(http.MethodPost, "/console/api/session", fmt.Sprintf(`{"name": "ada", "password": %q}`, password))
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("login: %d %s", resp.StatusCode, body)
	}
	return resp
}

func failure(t *testing.T, body string) protocol.Error {
	t.Helper()
	var e protocol.Error
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("the body is no error: %s", body)
	}
	return e
}

func TestNothingWithoutALogin(t *testing.T) {
	s := serve(t, nil)
	for _, call := range []string{
		"GET /console/api/session", "DELETE /console/api/session", "GET /console/api/events", "GET /console/api/groups/" + string(canary.ID()) + "/traces",
		"GET /console/api/traces/" + strings.Repeat("a", 32), "POST /console/api/groups/" + string(canary.ID()) + "/isolate", "POST /console/api/groups/" + string(canary.ID()) + "/release",
		"GET /console/api/decisions",
	} {
		method, path, _ := strings.Cut(call, " ")
		for name, cookie := range map[string]string{"no cookie": "", "a made-up one": "tracegate_console=" + strings.Repeat("A", 43)} {
			resp, body := s.caller(t).call(method, path, `{"reason": "x"}`, "Cookie", cookie)
			if resp.StatusCode != http.StatusUnauthorized || failure(t, body).Code != protocol.CodeUnauthenticated {
				t.Errorf("%s with %s: %d %s", call, name, resp.StatusCode, body)
			}
		}
	}
	if len(s.orders) != 0 {
		t.Errorf("orders went through: %v", s.orders)
	}
}

func TestSessionCookie(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	resp := c.login()
	cookie := resp.Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Path != "/console/" || cookie.Secure || len(cookie.Value) != 43 {
		t.Errorf("the cookie is %+v", cookie)
	}
	again := s.caller(t).login().Cookies()[0]
	if again.Value == cookie.Value {
		t.Error("two logins gave the same token")
	}
	if resp, _ := c.call(http.MethodGet, "/console/api/session", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("session gave %d", resp.StatusCode)
	}
	if resp, _ := c.call(http.MethodDelete, "/console/api/session", ""); resp.StatusCode != http.StatusNoContent {
		t.Errorf("logout gave %d", resp.StatusCode)
	}
	// The token is dead, not only forgotten by the browser.
	if resp, _ := s.caller(t).call(http.MethodGet, "/console/api/session", "", "Cookie", cookie.Name+"="+cookie.Value); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the token works after the logout: %d", resp.StatusCode)
	}
	secure := s.caller(t)
	resp, _ = secure.call(http.MethodPost, "/console/api/session", fmt.Sprintf(`{"name": "ada", "password": %q}`, password), "X-Forwarded-Proto", "https")
	if !resp.Cookies()[0].Secure {
		t.Error("behind TLS the cookie is not secure")
	}
}

func TestSessionsExpireAndAreBounded(t *testing.T) {
	s := serve(t, nil)
	first := s.caller(t)
	first.login()
	s.do(func() { s.skew = time.Second }) // so that it is the one that ends first
	for range 64 {
		s.caller(t).login()
	}
	if resp, _ := first.call(http.MethodGet, "/console/api/session", ""); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the oldest of 65 sessions gives %d", resp.StatusCode)
	}
	last := s.caller(t)
	last.login()
	s.do(func() { s.skew += s.cfg.SessionTTL - time.Second })
	if resp, _ := last.call(http.MethodGet, "/console/api/session", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("a second before its end a session gives %d", resp.StatusCode)
	}
	s.do(func() { s.skew += 2 * time.Second })
	if resp, _ := last.call(http.MethodGet, "/console/api/session", ""); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("after its end a session gives %d", resp.StatusCode)
	}
}

func TestForeignRequestsAreRefused(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	c.login()
	path := "/console/api/groups/" + string(canary.ID()) + "/isolate"
	tests := []struct {
		name   string
		method string
		path   string
		header []string
	}{
		{"another origin", http.MethodPost, path, []string{"Origin", "http://evil.example"}},
		{"another port of this host", http.MethodPost, path, []string{"Origin", "http://127.0.0.1:8080"}},
		{"no origin at all", http.MethodPost, path, []string{"Origin", "null"}},
		{"cross-site by the browser's word", http.MethodPost, path, []string{"Sec-Fetch-Site", "cross-site"}},
		{"same-site by the browser's word", http.MethodPost, path, []string{"Sec-Fetch-Site", "same-site"}},
		{"a form, without our header", http.MethodPost, path, []string{"X-Tracegate-Console", "", "Content-Type", "application/x-www-form-urlencoded"}},
		{"reading from another site", http.MethodGet, "/console/api/session", []string{"Sec-Fetch-Site", "same-site"}},
		{"login from another site", http.MethodPost, "/console/api/session", []string{"Origin", "http://evil.example"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := c.call(tt.method, tt.path, `{"reason": "x"}`, tt.header...)
			if resp.StatusCode != http.StatusForbidden || failure(t, body).Code != protocol.CodePermissionDenied {
				t.Errorf("got %d %s", resp.StatusCode, body)
			}
			if resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("another site may read the answer")
			}
		})
	}
	if len(s.orders) != 0 {
		t.Errorf("orders went through: %v", s.orders)
	}
	resp, body := c.call(http.MethodPost, path, `{"reason": "x"}`, "Origin", s.url, "Sec-Fetch-Site", "same-origin")
	if resp.StatusCode != http.StatusOK {
		t.Errorf("our own page is refused: %d %s", resp.StatusCode, body)
	}
}

func TestGuessingIsLimited(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	limited := 0
	for range 30 {
		resp, body := c.call(http.MethodPost, "/console/api/session", `{"name": "eve", "password": "guess"}`)
		switch e := failure(t, body); {
		case resp.StatusCode == http.StatusUnauthorized && e.Field == "password":
		case resp.StatusCode == http.StatusTooManyRequests && e.Temporary && resp.Header.Get("Retry-After") != "":
			limited++
		default:
			t.Fatalf("got %d %s", resp.StatusCode, body)
		}
	}
	if limited < 20 {
		t.Errorf("%d of 30 guesses were limited", limited)
	}
	want := `
# HELP tracegate_console_logins_total Logins by outcome: granted, refused, limited.
# TYPE tracegate_console_logins_total counter
tracegate_console_logins_total{outcome="limited"} %d
tracegate_console_logins_total{outcome="refused"} %d
`
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(fmt.Sprintf(want, limited, 30-limited)), "tracegate_console_logins_total"); err != nil {
		t.Error(err)
	}
}

func TestRightLoginsAreNotLimited(t *testing.T) {
	s := serve(t, nil)
	for range 30 {
		s.caller(t).login()
	}
}

func TestPasswordFileCanChange(t *testing.T) {
	s := serve(t, nil)
	if err := os.WriteFile(s.cfg.PasswordFile, []byte("another one"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := s.caller(t)
	if resp, _ := c.call(http.MethodPost, "/console/api/session", fmt.Sprintf(`{"name": "ada", "password": %q}`, password)); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the old password gave %d", resp.StatusCode)
	}
	if resp, _ := c.call(http.MethodPost, "/console/api/session", `{"name": "ada", "password": "another one"}`); resp.StatusCode != http.StatusOK {
		t.Errorf("the new password gave %d", resp.StatusCode)
	}
	if err := os.Remove(s.cfg.PasswordFile); err != nil {
		t.Fatal(err)
	}
	if resp, body := c.call(http.MethodPost, "/console/api/session", `{"name": "ada", "password": ""}`); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without a file: %d %s", resp.StatusCode, body)
	}
}

func TestBadInputIsNamed(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	c.login()
	id := string(canary.ID())
	isolate := "POST /console/api/groups/" + id + "/isolate"
	tests := []struct {
		name, call, body string
		status           int
		field            string
	}{
		{"no JSON", isolate, `reason`, 400, "body"},
		{"empty", isolate, ``, 400, "body"},
		{"unknown key", isolate, `{"reason": "x", "pool": "y"}`, 400, "body"},
		{"two values", isolate, `{"reason": "x"} {}`, 400, "body"},
		{"wrong type", isolate, `{"reason": 1}`, 400, "body"},
		{"too large", isolate, `{"reason": "` + strings.Repeat("x", 20_000) + `"}`, 413, "body"},
		{"no reason", isolate, `{"reason": "  "}`, 400, "reason"},
		{"long reason", isolate, `{"reason": "` + strings.Repeat("ü", 281) + `"}`, 400, "reason"},
		{"negative time", isolate, `{"reason": "x", "for_ms": -1}`, 400, "for_ms"},
		{"a year", isolate, `{"reason": "x", "for_ms": 31536000000}`, 400, "for_ms"},
		{"no group id", "POST /console/api/groups/ABCDEF/isolate", `{"reason": "x"}`, 400, "group"},
		{"unknown group", "POST /console/api/groups/ffffff/isolate", `{"reason": "x"}`, 404, ""},
		{"no trace id", "GET /console/api/traces/xyz", ``, 400, "trace"},
		{"unknown trace", "GET /console/api/traces/" + strings.Repeat("0", 32), ``, 404, "trace"},
		{"bad errors", "GET /console/api/groups/" + id + "/traces?errors=maybe", ``, 400, "errors"},
		{"bad min_ms", "GET /console/api/groups/" + id + "/traces?min_ms=-4", ``, 400, "min_ms"},
		{"huge min_ms", "GET /console/api/groups/" + id + "/traces?min_ms=99999999999999999999", ``, 400, "min_ms"},
		{"bad group", "GET /console/api/decisions?group=xyz", ``, 400, "group"},
		{"bad time", "GET /console/api/decisions?from=yesterday", ``, 400, "from"},
		{"a time nobody keeps", "GET /console/api/decisions?to=9999-01-01T00:00:00Z", ``, 400, "to"},
		{"backwards", "GET /console/api/decisions?from=2026-02-02T00:00:00Z&to=2026-02-01T00:00:00Z", ``, 400, "from"},
		{"unknown address", "GET /console/api/nothing", ``, 404, ""},
		{"bad name", "POST /console/api/session", `{"name": "a\nb", "password": "x"}`, 400, "name"},
		{"no name", "POST /console/api/session", `{"password": "x"}`, 400, "name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method, path, _ := strings.Cut(tt.call, " ")
			resp, body := c.call(method, path, tt.body)
			if e := failure(t, body); resp.StatusCode != tt.status || e.Field != tt.field || e.Message == "" {
				t.Errorf("got %d %s", resp.StatusCode, body)
			}
			if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v", resp.Header)
			}
		})
	}
	if len(s.orders) != 0 {
		t.Errorf("orders went through: %v", s.orders)
	}
}

func TestStoresAwayIsUnavailable(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	c.login()
	s.do(func() { s.statsErr, s.refuse = errAway, errAway })
	for _, call := range []string{
		"GET /console/api/groups/" + string(canary.ID()) + "/traces", "GET /console/api/traces/" + strings.Repeat("a", 32), "POST /console/api/groups/" + string(canary.ID()) + "/isolate",
		"GET /console/api/decisions",
	} {
		method, path, _ := strings.Cut(call, " ")
		resp, body := c.call(method, path, `{"reason": "x"}`)
		if e := failure(t, body); resp.StatusCode != http.StatusServiceUnavailable || !e.Temporary || strings.Contains(body, "8123") {
			t.Errorf("%s: %d %s", call, resp.StatusCode, body)
		}
	}
}

func TestPageAndRedirect(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	if resp, _ := c.call(http.MethodGet, "/", ""); resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != "/console/" {
		t.Errorf("/ gave %d to %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	resp, body := c.call(http.MethodGet, "/console/", "")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "<title>Tracegate console</title>") || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'self'") {
		t.Errorf("the page: %d %v", resp.StatusCode, resp.Header)
	}
	for _, inline := range []string{"<style", "style=", "onclick=", "javascript:", "http://", "https://"} {
		if strings.Contains(body, inline) {
			t.Errorf("the page contains %s", inline)
		}
	}
}

// stream opens the event stream and gives its events, "name data".
func (c *caller) stream(ctx context.Context) (<-chan string, *http.Response) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.s.url+"/console/api/events", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := c.client.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	events := make(chan string)
	go func() {
		defer close(events)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 16<<20)
		name := ""
		for lines.Scan() {
			if after, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				name = after
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				select {
				case events <- name + " " + data:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return events, resp
}

func until(t *testing.T, events <-chan string, what string) string {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the stream ended before %s", what)
			}
			if strings.HasPrefix(e, what) {
				return e
			}
		case <-timeout:
			t.Fatalf("no %s", what)
		}
	}
}

func TestStreamBeginsWithTheWholeState(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	c.login()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first, resp := c.stream(ctx)
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	for range 2 { // a second viewer gets it at once as well
		seen := map[string]bool{}
		for len(seen) < 10 {
			name, _, _ := strings.Cut(until(t, first, ""), " ")
			seen[name] = true
		}
		want := map[string]bool{"groups": true, "chart": true, "decisions": true, "edges": true, "telemetry": true, "health": true, "kernel": true, "map": true, "storage": true, "anomalies": true}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("sections (-want +got):\n%s", diff)
		}
		first, _ = c.stream(ctx)
	}
}

func TestOnePollerForAllViewersAndNoneForNone(t *testing.T) {
	s := serve(t, func(c *console.Config) { c.Poll = 100 * time.Millisecond })
	c := s.caller(t)
	c.login()
	asked := func() (n int) {
		s.do(func() { n = s.asked })
		return n
	}
	if n := asked(); n != 0 {
		t.Errorf("nobody watches, and %d questions were asked", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begin := time.Now()
	var streams []<-chan string
	for range 20 {
		events, _ := c.stream(ctx)
		streams = append(streams, events)
	}
	for _, events := range streams {
		until(t, events, "groups")
		until(t, events, "groups")
	}
	// One a tick, and some for the first viewer and ticks that came late; a poller for each
	// viewer would ask twenty times as often.
	if n, most := asked(), 2*int(time.Since(begin)/s.cfg.Poll)+5; n > most {
		t.Errorf("%d questions for 20 viewers in %s, at most %d expected", n, time.Since(begin), most)
	}
	cancel()
	gone := func() bool { return gauge(t, s, "tracegate_console_viewers") == 0 }
	waitFor(t, "viewers are gone", gone)
	before := asked()
	tick := time.NewTicker(3 * s.cfg.Poll)
	defer tick.Stop()
	<-tick.C
	if n := asked(); n > before+1 {
		t.Errorf("%d questions after the last viewer left", n-before)
	}
}

func TestViewersAreBounded(t *testing.T) {
	s := serve(t, func(c *console.Config) { c.MaxViewers = 2 })
	c := s.caller(t)
	c.login()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	one, _ := c.stream(ctx)
	two, _ := c.stream(ctx)
	until(t, one, "groups")
	until(t, two, "groups")
	if resp, body := c.call(http.MethodGet, "/console/api/events", ""); resp.StatusCode != http.StatusServiceUnavailable || !failure(t, body).Temporary {
		t.Errorf("the third viewer got %d %s", resp.StatusCode, body)
	}
	if n := counter(t, s, "full"); n != 1 {
		t.Errorf("full was counted %v times", n)
	}
}

func TestStreamEndsWithItsSession(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	c.login()
	events, _ := c.stream(t.Context())
	until(t, events, "groups")
	c.call(http.MethodDelete, "/console/api/session", "")
	until(t, events, "bye")
	if e, open := <-events; open {
		t.Errorf("the stream goes on with %s", e)
	}
}

func TestStreamsEndWithRun(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	c.login()
	events, _ := c.stream(t.Context())
	until(t, events, "groups")
	s.stop()
	for range events { // ends, or the test times out
	}
	if resp, _ := c.call(http.MethodGet, "/console/api/events", ""); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after the end a viewer gets %d", resp.StatusCode)
	}
	if n := counter(t, s, "shutdown"); n != 1 {
		t.Errorf("shutdown was counted %v times", n)
	}
}

func TestConfigNamesTheKey(t *testing.T) {
	tests := map[string]func(*console.Config){
		"password_file": func(c *console.Config) { c.PasswordFile = "" },
		"session_ttl":   func(c *console.Config) { c.SessionTTL = time.Second },
		"poll":          func(c *console.Config) { c.Poll = 0 },
		"window":        func(c *console.Config) { c.Window = 1500 * time.Millisecond },
		"step":          func(c *console.Config) { c.Step = 0 },
		"history":       func(c *console.Config) { c.History = time.Hour * 24 },
		"timeout":       func(c *console.Config) { c.Timeout = 0 },
		"max_viewers":   func(c *console.Config) { c.MaxViewers = 0 },
	}
	for key, change := range tests {
		cfg := console.DefaultConfig()
		cfg.PasswordFile = "x"
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"missing": empty + "-not", "empty": empty} {
		cfg := console.DefaultConfig()
		cfg.PasswordFile = file
		if _, err := console.New(cfg, console.Deps{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s password file: %v", name, err)
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-tick.C
	}
}

// value gives a metric's value, of the label value where one is given.
func value(t *testing.T, s *served, name, label string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s %s", name, label)
	return 0
}

func gauge(t *testing.T, s *served, name string) float64 { return value(t, s, name, "") }

func counter(t *testing.T, s *served, reason string) float64 {
	return value(t, s, "tracegate_console_viewers_dropped_total", reason)
}

// withViewer gives the console a second password.
func withViewer(t *testing.T) func(*console.Config) {
	t.Helper()
	return func(c *console.Config) {
		c.ViewerFile = filepath.Join(t.TempDir(), "viewer.password")
		if err := os.WriteFile(c.ViewerFile, []byte(viewerPassword+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const viewerPassword = "only-to-look"

// TestViewersGiveNoOrders: they see everything, and what they order is refused.
func TestViewersGiveNoOrders(t *testing.T) {
	s := serve(t, withViewer(t))
	c := s.caller(t)
	resp, body := c.call(http.MethodPost, "/console/api/session", `{"name": "bob", "password": "`+viewerPassword+`"}`)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"role":"viewer"`) {
		t.Fatalf("login: %d %s", resp.StatusCode, body)
	}
	for _, path := range []string{"/groups/" + string(canary.ID()) + "/isolate", "/groups/" + string(canary.ID()) + "/release", "/decisions/1/confirm"} {
		resp, body := c.call(http.MethodPost, "/console/api"+path, `{"reason": "x"}`)
		if resp.StatusCode != http.StatusForbidden || failure(t, body).Code != protocol.CodePermissionDenied {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	if resp, body := c.call(http.MethodGet, "/console/api/groups/"+string(canary.ID())+"/traces", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("traces: %d %s", resp.StatusCode, body)
	}
	s.do(func() {
		if len(s.orders) != 0 {
			t.Errorf("orders went through: %v", s.orders)
		}
	})
	if resp, _ := s.caller(t).call(http.MethodPost, "/console/api/session", `{"name": "bob", "password": "neither"}`); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("another password: %d", resp.StatusCode)
	}
	if resp, body := s.caller(t).call(http.MethodPost, "/console/api/session", `{"name": "ada", "password": "`+password+`"}`); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"role":"operator"`) {
		t.Errorf("an operator: %d %s", resp.StatusCode, body)
	}
}

// TestConfirm passes a person's word on, with their name.
func TestConfirm(t *testing.T) {
	s := serve(t, nil)
	c := s.caller(t)
	if resp, _ := c.call(http.MethodPost, "/console/api/decisions/7/confirm", `{"reason": "x"}`); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a session: %d", resp.StatusCode)
	}
	c.call(http.MethodPost, "/console/api/session", `{"name": "ada", "password": "`+password+`"}`)
	if resp, body := c.call(http.MethodPost, "/console/api/decisions/7/confirm", `{"reason": " "}`); resp.StatusCode != http.StatusBadRequest || failure(t, body).Field != "reason" {
		t.Errorf("without a reason: %d %s", resp.StatusCode, body)
	}
	if resp, body := c.call(http.MethodPost, "/console/api/decisions/7/confirm", `{"reason": "I see it too"}`); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"action":"isolate"`) {
		t.Errorf("confirmed: %d %s", resp.StatusCode, body)
	}
	s.do(func() {
		if len(s.orders) != 1 || s.orders[0] != "confirm 7 by ada: I see it too" {
			t.Errorf("orders: %v", s.orders)
		}
	})
}

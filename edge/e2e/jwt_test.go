package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/controlplane/explain"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

const (
	corpIssuer = "https://id.example.org"
	corpKeys   = "https://id.example.org/keys"
	corpPolicy = `
jwt:
  - {name: corp, issuer: "` + corpIssuer + `", audiences: [chat, web], jwksURL: "` + corpKeys + `", fromHeaders: [{name: Authorization, prefix: "Bearer "}], fromParams: [access_token], fromCookies: [corp]}
  - {name: away, issuer: away, jwksURL: "https://away.example.org/keys", fromHeaders: [{name: x-away}]}
`
)

// signer is an identity provider's key.
type signer struct {
	key *ecdsa.PrivateKey
	kid string
}

func newSigner(t *testing.T, kid string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, kid}
}

// jwks is the public key as the provider shows it.
func (s signer) jwks(t *testing.T) string {
	t.Helper()
	point, err := s.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"keys":[{"kty":"EC","kid":%q,"alg":"ES256","use":"sig","crv":"P-256","x":%q,"y":%q}]}`, s.kid, text(point[1:33]), text(point[33:]))
}

// token has what makes it good, and claims beside or instead; nil takes one away.
func (s signer) token(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{"iss": corpIssuer, "aud": "chat", "sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	token := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	token.Header["kid"] = s.kid
	signed, err := token.SignedString(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// TestIdentityProviders: tokens of an operator's provider give cohorts, and rules require
// them; nothing else does, whatever it says about itself. The policy is tried open and
// closed, since the first route of a request differs in it.
func TestIdentityProviders(t *testing.T) {
	s := newStack(t, nil)
	before := s.counters()
	for _, failure := range []string{"open", "closed"} {
		t.Run(failure, func(t *testing.T) {
			outer := s.t
			s.t = t
			testIdentityProviders(t, &rules{stack: s}, failure)
			s.t = outer
		})
	}
	if after := s.counters(); after.listeners != before.listeners {
		t.Errorf("listeners were touched:\nbefore %+v\nafter  %+v", before.listeners, after.listeners)
	}
}

func testIdentityProviders(t *testing.T, r *rules, failure string) {
	corp, stranger := newSigner(t, "one"), newSigner(t, "one")
	set := func(keys map[string]string, lines ...string) {
		r.edge.Keys = keys
		r.version++
		mark := fmt.Sprintf("%s %d", t.Name(), r.version)
		first := fmt.Sprintf("{name: mark, match: [{path: /mark}], directResponse: {status: 200, body: %q}}", mark)
		r.policy = strings.Replace(withRules(append([]string{first}, lines...)), "failure: open", "failure: "+failure, 1) + corpPolicy
		r.apply()
		waitFor(t, "the rules", func() bool { return r.ask(ask{path: "/mark"}).body == mark })
	}
	lines := []string{
		"{name: staff-only, match: [{path: /cohort, cohort: staff}], jwt: {require: [corp]}}",
		"{name: canary-only, match: [{path: /cohort, cohort: canary}], jwt: {require: [corp]}}",
		"{name: inside, match: [{prefix: /inside}], jwt: {require: [corp]}, cors: {origins: ['https://one.test'], methods: [GET]}}",
		"{name: ours, match: [{prefix: /ours}], jwt: {require: [session]}}",
		"{name: either, match: [{prefix: /either}], jwt: {require: [away, session, corp]}}",
		"{name: optional, match: [{prefix: /optional}], jwt: {require: [corp], allowMissing: true}}",
		"{name: away, match: [{prefix: /away}], jwt: {require: [away]}}",
		"{name: answer, match: [{path: /answer}], jwt: {require: [corp]}, directResponse: {status: 203}}",
		"{name: socket, match: [{path: /v1/ws, headers: [{name: x-socket, present: true}]}], jwt: {require: [corp]}, websocket: true}",
	}
	set(map[string]string{corpKeys: corp.jwks(t)}, lines...)

	bearer := func(token string) http.Header { return header("Authorization", "Bearer "+token) }
	role := jwt.MapClaims{"role": "staff", "tenant": "acme"}
	good, staff := corp.token(t, nil), corp.token(t, role)
	session := r.token(jwt.MapClaims{"sub": "u1", "name": "ann"})
	plain := group.Group{Env: "prod", Tenant: "public"}
	ofStaff := group.Group{Color: group.ColorOf("staff"), Env: "prod", Tenant: "acme"}
	for name, tt := range map[string]struct {
		path   string
		header http.Header
		status int
		group  group.Group
	}{
		"a token":                         {"/inside", bearer(good), 200, plain},
		"its claims":                      {"/inside", bearer(staff), 200, ofStaff},
		"where nothing is required":       {"/", bearer(staff), 200, ofStaff},
		"where it is bad, and not needed": {"/", bearer(stranger.token(t, role)), 200, plain},
		"in the query":                    {"/inside?access_token=" + staff, nil, 200, ofStaff},
		"in a cookie":                     {"/inside", header("Cookie", "a=b; corp="+staff), 200, ofStaff},
		"in no place for it":              {"/inside", header("X-Away", staff), 401, plain},
		"none":                            {"/inside", nil, 401, plain},
		"no token at all":                 {"/inside", bearer("x"), 401, plain},
		"expired":                         {"/inside", bearer(corp.token(t, jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()})), 401, plain},
		"without an end":                  {"/inside", bearer(corp.token(t, jwt.MapClaims{"exp": nil})), 401, plain},
		"not yet":                         {"/inside", bearer(corp.token(t, jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()})), 401, plain},
		"another issuer":                  {"/inside", bearer(corp.token(t, jwt.MapClaims{"iss": "https://evil.test"})), 401, plain},
		"no issuer":                       {"/inside", bearer(corp.token(t, jwt.MapClaims{"iss": nil})), 401, plain},
		"another audience":                {"/inside", bearer(corp.token(t, jwt.MapClaims{"aud": "mail"})), 403, plain},
		"one of its audiences":            {"/inside", bearer(corp.token(t, jwt.MapClaims{"aud": []string{"mail", "web"}})), 200, plain},
		"another key":                     {"/inside", bearer(stranger.token(t, role)), 401, plain},
		"no signature":                    {"/inside", bearer(unsigned(t, role)), 401, plain},
		"signed with the public key":      {"/inside", bearer(confused(t, corp.jwks(t))), 401, plain},
		"a session is none of theirs":     {"/inside", bearer(session), 401, plain},
		"claims by hand":                  {"/inside", header(semconv.HeaderClaims, "eyJyb2xlIjoic3RhZmYifQ"), 401, plain},
		"a session":                       {"/ours", bearer(session), 200, plain},
		"theirs is no session":            {"/ours", bearer(staff), 401, ofStaff},
		"any of them: a session":          {"/either", bearer(session), 200, plain},
		"any of them: theirs":             {"/either", bearer(staff), 200, ofStaff},
		"any of them: none":               {"/either", nil, 401, plain},
		"optional: none":                  {"/optional", nil, 200, plain},
		"optional: good":                  {"/optional", bearer(good), 200, plain},
		"optional: bad":                   {"/optional", bearer(stranger.token(t, nil)), 401, plain},
		"keys that were never had":        {"/away", header("X-Away", corp.token(t, jwt.MapClaims{"iss": "away", "aud": nil})), 401, plain},
		"before an answer of the edge":    {"/answer", nil, 401, plain},
		"an answer of the edge":           {"/answer", bearer(good), 203, plain},
		"a rule of their cohort":          {"/cohort", bearer(staff), 200, ofStaff},
		"a rule of a cohort, none":        {"/cohort", header("X-Env", "canary"), 401, canary},
		"no rule of a cohort":             {"/cohort", nil, 200, plain},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.ask(ask{path: tt.path, header: tt.header})
			if got.status != tt.status {
				t.Errorf("status %d, want %d: %s", got.status, tt.status, got.body)
			}
			// Envoy adds no headers of the routes where it answers instead of an answer of its own.
			if g := got.header.Get(semconv.HeaderGroup); g != string(tt.group.ID()) && name != "before an answer of the edge" {
				t.Errorf("group %s, want %s", g, tt.group.ID())
			}
			if got.status == http.StatusUnauthorized && !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("401 with %q", got.header)
			}
			for name := range got.seen.Header {
				if strings.EqualFold(name, semconv.HeaderClaims) {
					t.Error("the claims reached the upstream")
				}
			}
		})
	}
	t.Run("the token goes on", func(t *testing.T) {
		if got := r.ask(ask{path: "/inside", header: bearer(good)}); got.seen.Header.Get("Authorization") != "Bearer "+good {
			t.Errorf("the upstream saw %v", got.seen.Header)
		}
	})
	t.Run("a preflight needs none", func(t *testing.T) {
		got := r.ask(ask{method: http.MethodOptions, path: "/inside", header: header("Origin", "https://one.test", "Access-Control-Request-Method", "GET")})
		if got.status != http.StatusOK || got.header.Get("Access-Control-Allow-Origin") != "https://one.test" {
			t.Errorf("%d %v", got.status, got.header)
		}
	})
	if failure == "open" { // closed, Envoy refuses every WebSocket: it has no group when it decides on it
		t.Run("a WebSocket", func(t *testing.T) {
			for token, want := range map[string]int{staff: http.StatusSwitchingProtocols, "": http.StatusUnauthorized, stranger.token(t, role): http.StatusUnauthorized} {
				h := header("X-Socket", "1", "Cookie", "corp="+token)
				conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+r.edge.Listen+"/v1/ws", h)
				if resp == nil || resp.StatusCode != want {
					t.Errorf("got %+v, %v, want %d", resp, err, want)
				}
				if err == nil {
					conn.Close()
				}
			}
		})
	}
	t.Run("explain agrees", func(t *testing.T) {
		for _, claims := range []jwt.MapClaims{nil, role, {"aud": "mail"}, {"aud": []any{"mail", "web"}}, {"iss": "tracegate"}} {
			for _, path := range []string{"/", "/inside", "/ours", "/either", "/optional", "/answer", "/cohort"} {
				h, asked := http.Header{}, explain.Request{Method: http.MethodGet, Host: "chat.test", Path: path}
				if claims != nil {
					asked.Claims = map[string]any{"iss": corpIssuer, "aud": "chat"}
					maps.Copy(asked.Claims, claims)
					if h = bearer(corp.token(t, claims)); asked.Claims["iss"] == "tracegate" {
						h = bearer(r.token(jwt.MapClaims{"iss": "tracegate"}))
					}
				}
				if want, _ := asked.Claims["aud"].(string); want == "mail" && path != "/inside" && path != "/optional" && path != "/answer" && path != "/either" {
					asked.Claims = nil // not verified, so there are no claims for anybody else
				}
				want, err := explain.Explain(r.plan(), asked)
				if err != nil {
					t.Fatal(err)
				}
				got := r.ask(ask{path: path, header: h})
				if want.Action == explain.Serve {
					want.Status = http.StatusOK
				}
				if g := got.header.Get(semconv.HeaderGroup); got.status != want.Status || g != string(want.Group) && path != "/answer" {
					t.Errorf("%s with %v: Envoy %d %s, explain %d %s: %v", path, claims, got.status, got.header.Get(semconv.HeaderGroup), want.Status, want.Group, want.Why)
				}
			}
		}
	})
	t.Run("keys are rotated", func(t *testing.T) {
		next := newSigner(t, "two")
		both := strings.TrimSuffix(corp.jwks(t), "]}") + "," + strings.TrimPrefix(next.jwks(t), `{"keys":[`)
		set(map[string]string{corpKeys: both}, lines...)
		waitFor(t, "the new key", func() bool {
			return r.ask(ask{path: "/inside", header: bearer(next.token(t, nil))}).status == http.StatusOK
		})
		if got := r.ask(ask{path: "/inside", header: bearer(good)}); got.status != http.StatusOK {
			t.Errorf("the old key beside it: %d", got.status)
		}
		set(map[string]string{corpKeys: next.jwks(t)}, lines...)
		waitFor(t, "the old key to go", func() bool {
			return r.ask(ask{path: "/inside", header: bearer(good)}).status == http.StatusUnauthorized
		})
	})
}

// unsigned is a token that says of itself that it needs no signature (RFC 7519, 6).
func unsigned(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{"iss": corpIssuer, "aud": "chat", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	text, err := jwt.NewWithClaims(jwt.SigningMethodNone, all).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// confused is a token whose signature is a MAC with what everybody knows (RFC 8725, 2.1).
func confused(t *testing.T, public string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"iss": corpIssuer, "aud": "chat", "exp": time.Now().Add(time.Hour).Unix()})
	token.Header["kid"] = "one"
	text, err := token.SignedString([]byte(public))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

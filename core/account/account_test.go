package account_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/bcrypt"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store"
)

// users is a store that may be down.
type users struct {
	*store.Store
	looks atomic.Int64

	mu   sync.Mutex
	down error
}

func (u *users) fail(with error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.down = with
}

func (u *users) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.down
}

func (u *users) Credentials(ctx context.Context, name string) (chat.User, string, error) {
	if err := u.failure(); err != nil {
		return chat.User{}, "", err
	}
	return u.Store.Credentials(ctx, name)
}

func (u *users) EndedSince(ctx context.Context, since time.Time) ([]chat.Ended, error) {
	u.looks.Add(1)
	if err := u.failure(); err != nil {
		return nil, err
	}
	return u.Store.EndedSince(ctx, since)
}

func (u *users) hash(t *testing.T, name string) string {
	t.Helper()
	_, hash, err := u.Store.Credentials(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

const password = "correct horse"

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func key(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func service(t testing.TB, edit func(*account.Config)) (*account.Service, *users) {
	t.Helper()
	r := newRig(t, edit)
	return r.Service, r.users
}

// rig is a service with a clock of its own, and what it says to others.
type rig struct {
	*account.Service
	users *users
	reg   *prometheus.Registry
	now   time.Time

	mu    sync.Mutex
	ended []string // sessions whose sockets it has closed
	told  []string // users
}

func (r *rig) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (r *rig) metric(t *testing.T, name string) (sum float64) {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// sockets are those of a rig.
type sockets struct{ r *rig }

func (s sockets) End(_, session string) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.ended = append(s.r.ended, session)
}

func newRig(t testing.TB, edit func(*account.Config)) *rig {
	t.Helper()
	cfg := store.DefaultConfig()
	cfg.URL = "sqlite:" + filepath.Join(t.TempDir(), "core.db")
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return onStore(t, s, key(t), edit)
}

// onStore is a process on a store.
func onStore(t testing.TB, s *store.Store, k ed25519.PrivateKey, edit func(*account.Config)) *rig {
	t.Helper()
	cfg := account.DefaultConfig()
	cfg.BcryptCost = 4
	if edit != nil {
		edit(&cfg)
	}
	r := &rig{users: &users{Store: s}, reg: prometheus.NewRegistry(), now: now}
	var err error
	r.Service, err = account.New(cfg, account.Deps{
		Key: k, Store: r.users, Sockets: sockets{r}, Tell: func(user string) { r.told = append(r.told, user) },
		Now: func() time.Time { return r.now }, Registerer: r.reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func code(err error) protocol.Code {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestRegisterAndLogin(t *testing.T) {
	s, users := service(t, nil)
	u, err := s.Register(t.Context(), "ann", password, "search")
	if err != nil || u.Name != "ann" || u.Tenant != "search" || u.ID == "" {
		t.Fatalf("%+v %v", u, err)
	}
	if strings.Contains(users.hash(t, "ann"), password) {
		t.Error("the password is stored")
	}
	session, err := s.Login(t.Context(), "ann", password, "")
	if err != nil || session.User != u || !session.ExpiresAt.Equal(now.Add(15*time.Minute)) {
		t.Fatalf("%+v %v", session, err)
	}
	id, err := s.Verify(session.Token)
	if err != nil || id.User != u || !id.ExpiresAt.Equal(session.ExpiresAt) || id.TokenID == "" || id.Session != session.ID {
		t.Errorf("%+v %v", id, err)
	}
	if _, err := s.Register(t.Context(), "ann", password, ""); code(err) != protocol.CodeAlreadyExists {
		t.Errorf("second registration: %v", err)
	}
	unknown, wrong := errorOf(s.Login(t.Context(), "bob", password, "")), errorOf(s.Login(t.Context(), "ann", "wrong password", ""))
	if code(unknown) != protocol.CodeUnauthenticated || unknown.Error() != wrong.Error() {
		t.Errorf("unknown user %v, wrong password %v", unknown, wrong)
	}
	if _, err := s.Login(t.Context(), "ann", "short", ""); code(err) != protocol.CodeInvalidArgument {
		t.Errorf("short password: %v", err)
	}
	down := errors.New("down")
	users.fail(down)
	if _, err := s.Login(t.Context(), "ann", password, ""); !errors.Is(err, down) || code(err) != "" {
		t.Errorf("store down: %v", err)
	}
}

func errorOf(_ account.Session, err error) error { return err }

// TestUnknownUserCostsAHash: a login of an unknown user waits for its turn to hash, and
// hashes at the same cost, as that of a known one does. Clocks are not asked: they say
// little on a busy machine.
func TestUnknownUserCostsAHash(t *testing.T) {
	s, users := service(t, func(c *account.Config) { c.BcryptCost, c.HashQueue = 5, 0 })
	if _, err := s.Register(t.Context(), "ann", password, ""); err != nil {
		t.Fatal(err)
	}
	leave := account.Occupy(t, s)
	for _, name := range []string{"ann", "nobody"} {
		if _, err := s.Login(t.Context(), name, password, ""); code(err) != protocol.CodeUnavailable {
			t.Errorf("%s got past the gate: %v", name, err)
		}
	}
	leave()
	cost := func(hash string) int {
		n, err := bcrypt.Cost([]byte(hash))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if known, unknown := cost(users.hash(t, "ann")), cost(account.Decoy(t, s)); known != 5 || unknown != 5 {
		t.Errorf("cost %d for a known user, %d for an unknown one", known, unknown)
	}
	if _, err := s.Login(t.Context(), "nobody", password, ""); code(err) != protocol.CodeUnauthenticated {
		t.Errorf("got %v", err)
	}
}

func TestLoginStormIsBounded(t *testing.T) {
	s, _ := service(t, func(c *account.Config) { c.BcryptCost, c.HashQueue, c.HashWait = 6, 2, time.Minute })
	if _, err := s.Register(t.Context(), "ann", password, ""); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	codes := map[protocol.Code]int{}
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			_, err := s.Login(t.Context(), "ann", password, "")
			mu.Lock()
			codes[code(err)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if codes[""] < 3 || codes[protocol.CodeUnavailable] == 0 || codes[""]+codes[protocol.CodeUnavailable] != 30 {
		t.Errorf("results %v", codes)
	}
}

func TestTokensOfOthersAreRefused(t *testing.T) {
	k := key(t)
	tokens := account.NewTokens(k, time.Hour)
	u := chat.User{ID: "u1", Name: "ann", Tenant: "search"}
	good, _, err := tokens.Issue(u, "s1", now.Add(time.Hour), now)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		text, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	claims := func(edit func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{"iss": account.Issuer, "sub": "u1", "name": "ann", "sid": "s1", "session_exp": now.Add(time.Hour).Unix(), "exp": now.Add(time.Hour).Unix()}
		edit(c)
		return c
	}
	plain := claims(func(jwt.MapClaims) {})
	public := k.Public().(ed25519.PublicKey)
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"empty":                "",
		"garbage":              "a.b.c",
		"huge":                 strings.Repeat("a", 5000),
		"another key":          sign(jwt.SigningMethodEdDSA, key(t), plain),
		"no signature":         sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, plain),
		"public key as secret": sign(jwt.SigningMethodHS256, []byte(public), plain),
		"another issuer":       sign(jwt.SigningMethodEdDSA, k, claims(func(c jwt.MapClaims) { c["iss"] = "evil" })),
		"no expiry":            sign(jwt.SigningMethodEdDSA, k, claims(func(c jwt.MapClaims) { delete(c, "exp") })),
		"no subject":           sign(jwt.SigningMethodEdDSA, k, claims(func(c jwt.MapClaims) { delete(c, "sub") })),
		"no session":           sign(jwt.SigningMethodEdDSA, k, claims(func(c jwt.MapClaims) { delete(c, "sid") })),
		"no end of session":    sign(jwt.SigningMethodEdDSA, k, claims(func(c jwt.MapClaims) { delete(c, "session_exp") })),
		"bad name":             sign(jwt.SigningMethodEdDSA, k, claims(func(c jwt.MapClaims) { c["name"] = "A B" })),
		"other payload":        parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"u2"}`)) + "." + parts[2],
	} {
		if _, err := tokens.Verify(token, now); code(err) != protocol.CodeUnauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tokens.Verify(good, now.Add(time.Hour+time.Second)); code(err) != protocol.CodeUnauthenticated || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %v", err)
	}
	if id, err := tokens.Verify(good, now); err != nil || id.User != u {
		t.Errorf("good token: %+v %v", id, err)
	}
}

// TestKeyIDIsTheThumbprintOfTheRFC uses the key and thumbprint of RFC 8037, appendix A.
func TestKeyIDIsTheThumbprintOfTheRFC(t *testing.T) {
	x, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	if got := account.KeyID(x); got != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("got %s", got)
	}
}

func TestJWKSVerifiesTokens(t *testing.T) {
	k := key(t)
	var set struct {
		Keys []map[string]string
	}
	if err := json.Unmarshal([]byte(account.JWKS(k)), &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("%v %+v", err, set)
	}
	j := set.Keys[0]
	if j["kty"] != "OKP" || j["crv"] != "Ed25519" || j["alg"] != "EdDSA" || j["use"] != "sig" || len(j) != 6 {
		t.Errorf("got %v", j)
	}
	x, err := base64.RawURLEncoding.DecodeString(j["x"])
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := account.NewTokens(k, time.Hour).Issue(chat.User{ID: "u1", Name: "ann"}, "s1", time.Now(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return ed25519.PublicKey(x), nil })
	if err != nil || parsed.Header["kid"] != j["kid"] {
		t.Errorf("%v, kid %v, want %v", err, parsed.Header["kid"], j["kid"])
	}
}

func TestKeyFile(t *testing.T) {
	text, err := account.NewKeyPEM(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := account.LoadKey(file); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := account.LoadKey(file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key for all to read: %v", err)
	}
	for _, bad := range []string{"", "no pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := account.ParseKey([]byte(bad)); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	tokens := account.NewTokens(key(b), time.Hour)
	token, _, err := tokens.Issue(chat.User{ID: "u1", Name: "ann"}, "s1", now, now)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tokens.Verify(token, now); err != nil {
			b.Fatal(err)
		}
	}
}

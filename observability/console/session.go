package console

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tracegate/tracegate/core/protocol"
)

const (
	cookieName  = "tracegate_console"
	maxSessions = 64
	maxPassword = 4 << 10
)

// session is one login. ended is closed when it is over before its time.
type session struct {
	name    string
	viewer  bool // may look, and gives no orders
	expires time.Time
	ended   chan struct{}
}

// sessions are kept here alone, by the hash of their token: a memory dump or a log of
// the map gives no cookie away. They end with the process.
type sessions struct {
	ttl time.Duration

	mu sync.Mutex
	by map[[sha256.Size]byte]*session
}

func newSessions(ttl time.Duration) *sessions {
	return &sessions{ttl: ttl, by: map[[sha256.Size]byte]*session{}}
}

// open makes a session and gives its token: 256 random bits. When there are too many,
// the one that ends first goes.
func (s *sessions) open(name string, viewer bool, now time.Time) (token string, sess *session) {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	token = base64.RawURLEncoding.EncodeToString(raw[:])
	sess = &session{name: name, viewer: viewer, expires: now.Add(s.ttl), ended: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	var first [sha256.Size]byte
	for key, other := range s.by {
		if !now.Before(other.expires) {
			s.end(key)
		} else if f := s.by[first]; f == nil || other.expires.Before(f.expires) {
			first = key
		}
	}
	if len(s.by) >= maxSessions {
		s.end(first)
	}
	s.by[sha256.Sum256([]byte(token))] = sess
	return token, sess
}

func (s *sessions) find(token string, now time.Time) *session {
	key := sha256.Sum256([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	sess := s.by[key]
	if sess == nil {
		return nil
	}
	if !now.Before(sess.expires) {
		s.end(key)
		return nil
	}
	return sess
}

func (s *sessions) revoke(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(sha256.Sum256([]byte(token)))
}

// end forgets a session; the caller holds mu.
func (s *sessions) end(key [sha256.Size]byte) {
	if sess := s.by[key]; sess != nil {
		close(sess.ended)
		delete(s.by, key)
	}
}

// gate slows guessing down: each address may fail a few times, and all of them
// together some more. A right password costs nothing, so nobody is locked out by
// their own logins; by another's guesses from the same address they are, for seconds.
type gate struct {
	now func() time.Time

	mu  sync.Mutex
	all *rate.Limiter
	by  map[string]*rate.Limiter
}

const maxAddresses = 1024

func newGate(now func() time.Time) *gate {
	return &gate{now: now, all: rate.NewLimiter(1, 20), by: map[string]*rate.Limiter{}}
}

// try calls right unless the address must wait; ok is false where it must.
func (g *gate) try(address string, right func() bool) (granted, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	mine := g.by[address]
	if mine == nil {
		if len(g.by) >= maxAddresses {
			clear(g.by) // the limit of all still holds
		}
		mine = rate.NewLimiter(rate.Every(5*time.Second), 5)
		g.by[address] = mine
	}
	if mine.TokensAt(now) < 1 || g.all.TokensAt(now) < 1 {
		return false, false
	}
	if right() {
		return true, true
	}
	mine.AllowN(now, 1)
	g.all.AllowN(now, 1)
	return false, true
}

func readPassword(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read password: %w", err)
	}
	defer f.Close()
	buf := make([]byte, maxPassword+1)
	n, err := f.Read(buf)
	password := bytes.TrimSpace(buf[:n])
	switch {
	case n > maxPassword:
		return nil, fmt.Errorf("read password: %s is longer than %d bytes", file, maxPassword)
	case len(password) == 0:
		return nil, errors.Join(fmt.Errorf("read password: %s is empty", file), err)
	}
	return password, nil
}

// same compares in a time that depends on neither.
func same(a, b []byte) bool {
	x, y := sha256.Sum256(a), sha256.Sum256(b)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

var validName = regexp.MustCompile(`^[\p{L}\p{N}][\p{L}\p{N}._ -]{0,31}$`)

func (c *Console) postSession(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Name     string `json:"name"`
		Password string `json:"password"`
	}
	if err := decode(w, r, &in); err != nil {
		refuse(w, err)
		return
	}
	if !validName.MatchString(in.Name) {
		refuse(w, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "name", Message: "name must have 1 to 32 letters, digits, spaces, dots, dashes or underscores"})
		return
	}
	want, err := readPassword(c.cfg.PasswordFile)
	if err != nil {
		c.log.ErrorContext(r.Context(), "console login not possible", "error", err)
		refuse(w, &protocol.Error{Code: protocol.CodeUnavailable, Message: "the password file cannot be read", Temporary: true})
		return
	}
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	viewer := false
	granted, ok := c.login.try(address, func() bool {
		if same([]byte(in.Password), want) {
			return true
		}
		viewer = c.isViewer([]byte(in.Password))
		return viewer
	})
	switch {
	case !ok:
		c.metrics.logins.WithLabelValues("limited").Inc()
		w.Header().Set("Retry-After", "5")
		refuse(w, &protocol.Error{Code: protocol.CodeRateLimited, Message: "too many wrong passwords, wait a few seconds", Temporary: true})
	case !granted:
		c.metrics.logins.WithLabelValues("refused").Inc()
		c.log.WarnContext(r.Context(), "console login refused", "address", address)
		refuse(w, &protocol.Error{Code: protocol.CodeUnauthenticated, Field: "password", Message: "the password is wrong"})
	default:
		c.metrics.logins.WithLabelValues("granted").Inc()
		token, sess := c.sessions.open(in.Name, viewer, c.deps.Now())
		c.log.InfoContext(r.Context(), "console login", "address", address, "name", in.Name, "viewer", viewer)
		http.SetCookie(w, c.cookie(r, token, int(c.cfg.SessionTTL/time.Second)))
		answer(w, http.StatusOK, describe(sess))
	}
}

// Roles of a session.
const (
	roleOperator = "operator"
	roleViewer   = "viewer"
)

// isViewer says whether a password is that of viewers; where it cannot be read, nobody's.
func (c *Console) isViewer(password []byte) bool {
	if c.cfg.ViewerFile == "" {
		return false
	}
	want, err := readPassword(c.cfg.ViewerFile)
	if err != nil {
		c.log.Error("password of viewers", "error", err)
		return false
	}
	return same(password, want)
}

func (c *Console) cookie(r *http.Request, token string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: token, Path: Path, MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	}
}

func describe(s *session) map[string]any {
	role := roleOperator
	if s.viewer {
		role = roleViewer
	}
	return map[string]any{"name": s.name, "role": role, "expires_at": s.expires}
}

func (c *Console) getSession(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, describe(sessionOf(r)))
}

func (c *Console) deleteSession(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(cookieName); err == nil {
		c.sessions.revoke(cookie.Value)
	}
	http.SetCookie(w, c.cookie(r, "", -1))
	w.WriteHeader(http.StatusNoContent)
}

// operators lets next be called with the session of an operator only.
func (c *Console) operators(next http.HandlerFunc) http.HandlerFunc {
	return c.signedIn(func(w http.ResponseWriter, r *http.Request) {
		if sessionOf(r).viewer {
			refuse(w, &protocol.Error{Code: protocol.CodePermissionDenied, Message: "you are logged in as a viewer, and this changes something"})
			return
		}
		next(w, r)
	})
}

type sessionKey struct{}

func sessionOf(r *http.Request) *session {
	s, _ := r.Context().Value(sessionKey{}).(*session)
	return s
}

// signedIn lets next be called with a live session only.
func (c *Console) signedIn(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie(cookieName)
		if err != nil {
			refuse(w, errSignIn)
			return
		}
		sess := c.sessions.find(cookie.Value, c.deps.Now())
		if sess == nil {
			refuse(w, errSignIn)
			return
		}
		next(w, r.WithContext(context.WithValue(r.Context(), sessionKey{}, sess)))
	}
}

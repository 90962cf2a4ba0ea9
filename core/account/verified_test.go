package account_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/protocol"
)

// TestRememberedTokensEnd has a token be good, remembered, and then not good any more.
func TestRememberedTokensEnd(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *rig, account.Session){
		"expired": func(_ *testing.T, r *rig, s account.Session) { r.now = s.ExpiresAt },
		"ended": func(t *testing.T, r *rig, s account.Session) {
			if err := r.Logout(t.Context(), s.Token, s.RefreshToken); err != nil {
				t.Fatal(err)
			}
		},
		"pushed out and expired": func(t *testing.T, r *rig, s account.Session) {
			for range 3 {
				other, err := r.Login(t.Context(), "ann", password, "")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := r.Verify(other.Token); err != nil {
					t.Error(err)
				}
			}
			if _, err := r.Verify(s.Token); err != nil {
				t.Errorf("pushed out: %v", err)
			}
			r.now = s.ExpiresAt
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *account.Config) { c.Verified = 2 })
			if _, err := r.Register(t.Context(), "ann", password, "search"); err != nil {
				t.Fatal(err)
			}
			s, err := r.Login(t.Context(), "ann", password, "")
			if err != nil {
				t.Fatal(err)
			}
			first, err := r.Verify(s.Token)
			if err != nil {
				t.Fatal(err)
			}
			r.now = s.ExpiresAt.Add(-time.Second)
			if again, err := r.Verify(s.Token); err != nil || again != first {
				t.Errorf("remembered as %+v, %v; was %+v", again, err, first)
			}
			parts := strings.Split(s.Token, ".")
			if _, err := r.Verify(parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2]))); code(err) != protocol.CodeUnauthenticated {
				t.Errorf("another signature: %v", err)
			}
			end(t, r, s)
			if _, err := r.Verify(s.Token); code(err) != protocol.CodeUnauthenticated {
				t.Errorf("still good: %v", err)
			}
		})
	}
}

func BenchmarkVerifyRemembered(b *testing.B) {
	r := newRig(b, nil)
	if _, err := r.Register(b.Context(), "ann", password, "search"); err != nil {
		b.Fatal(err)
	}
	s, err := r.Login(b.Context(), "ann", password, "")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Verify(s.Token); err != nil {
			b.Fatal(err)
		}
	}
}

package webhook

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/mesh/secret"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	s := secret.Text(NewSecret([32]byte{1}))
	now := time.Unix(1_700_000_000, 0)
	body := []byte("services: []\n")
	for name, c := range map[string]struct {
		change func(http.Header) []byte
		want   string
	}{
		"good":           {func(http.Header) []byte { return body }, ""},
		"two signatures": {func(h http.Header) []byte { h.Set(headerSignature, "v1,AAAA "+h.Get(headerSignature)); return body }, ""},
		"no id":          {func(h http.Header) []byte { h.Del(headerID); return body }, headerID},
		"long id":        {func(h http.Header) []byte { h.Set(headerID, strings.Repeat("x", 200)); return body }, headerID},
		"no time":        {func(h http.Header) []byte { h.Del(headerTimestamp); return body }, headerTimestamp},
		"another time":   {func(h http.Header) []byte { h.Set(headerTimestamp, "1700000001"); return body }, headerSignature},
		"old":            {func(h http.Header) []byte { signed(s, h, "old", now.Add(-6*time.Minute), body); return body }, "7m0s away"},
		"of tomorrow":    {func(h http.Header) []byte { signed(s, h, "new", now.Add(24*time.Hour), body); return body }, "23h59m0s away"},
		"another body":   {func(http.Header) []byte { return []byte("services: [x]\n") }, headerSignature},
		"another id":     {func(h http.Header) []byte { h.Set(headerID, "other"); return body }, headerSignature},
		"another key": {func(h http.Header) []byte {
			signed(secret.Text(NewSecret([32]byte{2})), h, "x", now, body)
			return body
		}, headerSignature},
		"no signature":    {func(h http.Header) []byte { h.Del(headerSignature); return body }, headerSignature},
		"short signature": {func(h http.Header) []byte { h.Set(headerSignature, "v1,"); return body }, headerSignature},
	} {
		v, err := NewVerifier(s)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		if err := signed(s, h, "m1", now, body); err != nil {
			t.Fatal(err)
		}
		got := c.change(h)
		_, err = v.Verify(h, got, now.Add(time.Minute))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if c.want == "" {
			if _, err := v.Verify(h, got, now.Add(time.Minute)); !errors.Is(err, ErrReplayed) {
				t.Errorf("%s, again: %v", name, err)
			}
		}
	}
	for _, bad := range []secret.Text{"", "whsec_", "whsec_!", "AAAA"} {
		if _, err := NewVerifier(bad); err == nil {
			t.Errorf("secret %q is taken", string(bad))
		}
	}
}

// TestVerifierIsBounded: it forgets what cannot come again, and nothing else.
func TestVerifierIsBounded(t *testing.T) {
	t.Parallel()
	s := secret.Text(NewSecret([32]byte{1}))
	v, err := NewVerifier(s)
	if err != nil {
		t.Fatal(err)
	}
	v.most = 3
	now := time.Unix(1_700_000_000, 0)
	take := func(i int, now time.Time) error {
		h := http.Header{}
		signed(s, h, fmt.Sprint(i), now, nil)
		_, err := v.Verify(h, nil, now)
		return err
	}
	for i := range 3 {
		if err := take(i, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := take(4, now); err == nil {
		t.Error("a fourth was taken")
	}
	if err := take(5, now.Add(11*time.Minute)); err != nil {
		t.Errorf("later: %v", err)
	}
}

func signed(s secret.Text, h http.Header, id string, at time.Time, body []byte) error {
	key, err := Key(s)
	if err == nil {
		SetHeaders(h, key, id, at, body)
	}
	return err
}

package engine

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"

	"github.com/tracegate/tracegate/mesh/secret"
)

// authenticate checks HTTP basic authentication or ClickHouse's headers, in a time
// that does not tell how much of the name or the password was right.
func authenticate(h *http.Request, user string, password secret.Text) error {
	gotUser, gotPassword, ok := h.BasicAuth()
	if !ok {
		gotUser, gotPassword = h.Header.Get("X-ClickHouse-User"), h.Header.Get("X-ClickHouse-Key")
	}
	if gotUser == "" && gotPassword == "" {
		return newException(codeRequiredPassword, "REQUIRED_PASSWORD", "No user and password given")
	}
	userOK, passwordOK := same(gotUser, user), same(gotPassword, string(password))
	if !userOK || !passwordOK {
		return newException(codeAuthentication, "AUTHENTICATION_FAILED", "Authentication failed: password is incorrect, or there is no user with such name")
	}
	return nil
}

// same compares hashes, so that even lengths take the same time.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

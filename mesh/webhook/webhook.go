// Package webhook sends messages as Standard Webhooks 1.0 says (https://www.standardwebhooks.com):
// with an id by which a receiver knows a message again, the time, and a signature over both
// and the body. It keeps nothing and does not try again: that is its callers' part
// (controlplane/notify, core/push).
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/secret"
)

const secretPrefix = "whsec_"

// NewSecret makes a secret of 32 random bytes, as receivers are given it.
func NewSecret(random [32]byte) string {
	return secretPrefix + base64.StdEncoding.EncodeToString(random[:])
}

// Key is the key in a secret.
func Key(s secret.Text) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(s), secretPrefix))
	if err != nil || len(key) < 24 {
		return nil, errors.New("secret of webhooks: not " + secretPrefix + " and at least 24 bytes in base64")
	}
	return key, nil
}

// CheckURL says what is wrong with a receiver's address: it must be https, unless it is on
// this machine.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("url: %q is not a URL with a host", text)
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return fmt.Errorf("url: %q is not https, and not on this machine", text)
	}
	return nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Sign is the webhook-signature with a symmetric key ("Signature scheme"): HMAC-SHA256 of
// id, time and body.
func Sign(key []byte, id string, at time.Time, body []byte) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// NewClient does not follow redirects, which could lead anywhere.
func NewClient(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Post sends a message in JSON. The status is 0 where no answer came; one below 300 is no
// error. Errors do not name the URL, which may be secret.
func Post(ctx context.Context, client *http.Client, to string, key []byte, id string, at time.Time, body []byte) (status int, _ error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, errors.New("make request: the URL cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tracegate")
	SetHeaders(req.Header, key, id, at, body)
	res, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return 0, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // the connection is used again
	if res.StatusCode >= 300 {
		return res.StatusCode, fmt.Errorf("answer %s", res.Status)
	}
	return res.StatusCode, nil
}

// Again says whether a message that was answered with a status may be sent again.
func Again(status int) bool {
	return status == 0 || status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

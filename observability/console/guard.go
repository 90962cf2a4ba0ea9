package console

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/webpage"
)

// requestHeader must be on every call that changes something. A form of another site
// cannot set it, and a script of another site must ask first, which nobody answers.
const requestHeader = "X-Tracegate-Console"

const maxBody = 16 << 10

var (
	errSignIn   = &protocol.Error{Code: protocol.CodeUnauthenticated, Message: "log in first"}
	errNotFound = &protocol.Error{Code: protocol.CodeNotFound, Message: "there is nothing at this address"}
	errForeign  = &protocol.Error{Code: protocol.CodePermissionDenied, Message: "the request comes from another site"}
)

// guard keeps other sites out, three times over: the browser's word on where a request
// comes from (Sec-Fetch-Site, Origin), a header that only our script sets, and a
// cookie that is SameSite=Strict. The first is needed although there is the last:
// pages on other ports of this host, such as the edge's, are the same site.
func (c *Console) guard(next http.Handler) http.Handler {
	origin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		webpage.Secure(w.Header())
		w.Header().Set("Cache-Control", "no-store")
		unsafe := r.Method != http.MethodGet && r.Method != http.MethodHead
		site := r.Header.Get("Sec-Fetch-Site")
		switch {
		case origin.Check(r) != nil, site != "" && site != "same-origin" && site != "none", unsafe && r.Header.Get(requestHeader) == "":
			c.metrics.foreign.Inc()
			refuse(w, errForeign)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// decode reads one JSON object and nothing else; the error is fit for the client.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	return decodeUpTo(w, r, into, maxBody)
}

func decodeUpTo(w http.ResponseWriter, r *http.Request, into any, most int64) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, most))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil && d.Decode(&struct{}{}) != io.EOF {
		err = errors.New("more than one JSON value")
	}
	var large *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &large):
		return &protocol.Error{Code: protocol.CodeTooLarge, Field: "body", Message: "body is too large"}
	default:
		return &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "body", Message: "body is not the JSON that is expected here: " + err.Error()}
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone; there is nobody to tell
}

// refuse answers with a *protocol.Error, and with "unavailable" for any other.
func refuse(w http.ResponseWriter, err error) {
	var e *protocol.Error
	if !errors.As(err, &e) {
		e = &protocol.Error{Code: protocol.CodeUnavailable, Message: "the server behind the console does not answer", Temporary: true}
	}
	answer(w, e.Code.Status(), e)
}

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/tracegate/tracegate/core/protocol"
)

// maxBody bounds a request's body in bytes.
const maxBody = 64 << 10

// readBody reads a JSON object strictly: right type, valid UTF-8, no unknown field,
// nothing after it.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return protocol.NewError(protocol.CodeInvalidArgument, "content-type", "content-type must be application/json")
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return protocol.NewError(protocol.CodeTooLarge, "body", "body has more than 64 KiB")
	}
	if err != nil {
		return protocol.NewError(protocol.CodeInvalidArgument, "body", "body cannot be read")
	}
	if !utf8.Valid(b) { // the decoder would replace what is not
		return protocol.NewError(protocol.CodeInvalidArgument, "body", "body is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return bodyError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return protocol.NewError(protocol.CodeInvalidArgument, "body", "body holds more than one JSON value")
	}
	return nil
}

// bodyError names the field where the decoder does.
func bodyError(err error) error {
	field := "body"
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && t.Field != "" {
		return protocol.NewError(protocol.CodeInvalidArgument, t.Field, t.Field+" must not be a "+t.Value)
	}
	if _, name, ok := strings.Cut(err.Error(), "unknown field "); ok {
		field = strings.Trim(name, `"`)
		return protocol.NewError(protocol.CodeInvalidArgument, field, "there is no field "+field)
	}
	return protocol.NewError(protocol.CodeInvalidArgument, field, "body is not JSON: "+err.Error())
}

func write(w http.ResponseWriter, status int, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that has gone is no error of ours
	return nil
}

func writeError(w http.ResponseWriter, e *protocol.Error) {
	if e.Code == protocol.CodeRateLimited || e.Code == protocol.CodeUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if e.Code == protocol.CodeUnauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	_ = write(w, e.Code.Status(), e)
}

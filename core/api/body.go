package api

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/tracegate/tracegate/core/protocol"
)

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
	if waits(e.Code) {
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	}
	if e.Code == protocol.CodeUnauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	_ = write(w, e.Code.Status(), e)
}

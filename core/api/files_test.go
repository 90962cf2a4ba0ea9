package api

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/tracegate/tracegate/core/api/openapi"
	"github.com/tracegate/tracegate/core/file"
)

// TestDocumentHasEveryRoute that is written by hand and that a client finds by itself.
func TestDocumentHasEveryRoute(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			Summary    string
			Parameters []struct{ In, Name string }
			Responses  map[string]json.RawMessage
		}
	}
	if err := json.Unmarshal(openapi.Document, &doc); err != nil {
		t.Fatal(err)
	}
	elsewhere := map[string]bool{
		"GET /v1/ws":                     true, // speaks frames, which the document has no words for: subscription.proto
		"GET " + file.BlobPath + "{key}": true, // a signed link, which is followed as it was handed out
	}
	s := &server{deps: Deps{Files: struct{ Files }{}, Blobs: struct{ Blobs }{}}}
	for pattern := range s.byHand() {
		method, path, _ := strings.Cut(pattern, " ")
		o, described := doc.Paths[path][strings.ToLower(method)]
		if described == elsewhere[pattern] {
			t.Errorf("%s: described: %v", pattern, described)
		}
		if described && (o.Summary == "" || len(o.Parameters) != 1 || len(o.Responses) < 3 || o.Responses["default"] == nil) {
			t.Errorf("%s: %+v", pattern, o)
		}
	}
}

// TestPacedBodyOutlivesTheServersTimeouts: a body that comes slowly but steadily is read
// although the server gives others less time, through the handlers that stand before it.
func TestPacedBodyOutlivesTheServersTimeouts(t *testing.T) {
	s := httptest.NewUnstartedServer(otelhttp.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, &paced{r: r.Body, control: http.NewResponseController(w), start: time.Now()})
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, strconv.FormatInt(n, 10))
	}), "test"))
	s.Config.ReadTimeout, s.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
	s.Start()
	defer s.Close()
	body, pipe := io.Pipe()
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for range 8 {
			_, _ = pipe.Write([]byte("x"))
			<-tick.C
		}
		pipe.Close()
	}()
	r, err := http.Post(s.URL, "application/octet-stream", body)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got, _ := io.ReadAll(r.Body); string(got) != "8" {
		t.Errorf("read %s of 8 bytes", got)
	}
}

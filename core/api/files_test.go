package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

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

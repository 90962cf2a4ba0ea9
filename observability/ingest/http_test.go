package ingest

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tracegate/tracegate/mesh/identity"
	"github.com/tracegate/tracegate/mesh/identity/identitytest"
	"github.com/tracegate/tracegate/observability/ingest/otlp"
)

// post sends a body and gives the answer; encoding may be empty.
func post(t *testing.T, url, contentType, encoding string, body []byte) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, out
}

func zipped(t *testing.T, body []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHTTPStoresBeforeItAnswers sends all signals in both encodings, packed and plain.
func TestHTTPStoresBeforeItAnswers(t *testing.T) {
	s := &sink{tokens: map[string]int{}}
	r := start(t, testConfig(t), s)
	now := time.Now().UnixNano()
	json := map[string]string{
		"traces": fmt.Sprintf(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"web"}}]},"scopeSpans":[{"spans":[
			{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","name":"a","kind":2,"startTimeUnixNano":"%d","endTimeUnixNano":"%d","unknownField":1},
			{"traceId":"","spanId":"EEE19B7EC3C1B174","name":"b","startTimeUnixNano":"%d"}]}]}]}`, now, now+1e6, now),
		"metrics": fmt.Sprintf(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"g","gauge":{"dataPoints":[{"timeUnixNano":"%d","asDouble":2.5},{"asInt":"1"}]}}]}]}]}`, now),
		"logs":    fmt.Sprintf(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"%d","severityNumber":9,"body":{"stringValue":"hello"},"traceId":"5b8efff798038103d269b633813fc60c"},{"timeUnixNano":"1"}]}]}]}`, now),
	}
	for signal, body := range json {
		for _, encoding := range []string{"", "gzip"} {
			raw := []byte(body)
			if encoding == "gzip" {
				raw = zipped(t, raw)
			}
			before := s.rows()
			resp, out := post(t, r.http+"/v1/"+signal, "application/json; charset=utf-8", encoding, raw)
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || !strings.Contains(string(out), `"partialSuccess"`) || !strings.Contains(string(out), `:"1"`) {
				t.Errorf("%s %q: %d %s, want 1 rejected", signal, encoding, resp.StatusCode, out)
			}
			if n := s.rows() - before; n != 1 {
				t.Errorf("%s %q: %d rows are stored when it is answered, want 1", signal, encoding, n)
			}
		}
	}
	resp, out := post(t, r.http+"/v1/traces", typeProto, "gzip", zipped(t, marshal(t, message(5, 2))))
	var answer collectortrace.ExportTraceServiceResponse
	if err := proto.Unmarshal(out, &answer); err != nil || resp.StatusCode != 200 || answer.GetPartialSuccess().GetRejectedSpans() != 2 {
		t.Errorf("protobuf: %d %v %v", resp.StatusCode, &answer, err)
	}
	a := r.Account()
	balanced(t, a)
	if a.Stored != 9 || a.Received != 17 || a.Tables[otlp.Logs].Stored != 2 {
		t.Errorf("account = %+v", a)
	}
}

func TestHTTPSaysWhatIsWrong(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxMessage = 10_000
	s := &sink{tokens: map[string]int{}}
	r := start(t, cfg, s)
	big := make([]byte, 20_000)
	for _, tc := range []struct {
		name, path, contentType, encoding string
		body                              []byte
		code                              int
		says                              string
	}{
		{"another content type", "/v1/traces", "text/plain", "", nil, 415, "content type must be"},
		{"another encoding", "/v1/traces", typeProto, "br", nil, 415, "encoding \"br\" is not known"},
		{"no protobuf", "/v1/traces", typeProto, "", []byte("\xff\xff\xff"), 400, ""},
		{"no JSON", "/v1/logs", typeJSON, "", []byte(`{"resourceLogs":`), 400, ""},
		{"no gzip", "/v1/traces", typeProto, "gzip", []byte("plain"), 400, "not gzip"},
		{"cut gzip", "/v1/traces", typeProto, "gzip", zipped(t, marshal(t, message(3, 0)))[:40], 400, "read body"},
		{"too large", "/v1/metrics", typeProto, "", big, 413, "more than 10000 bytes"},
		{"too large when unpacked", "/v1/metrics", typeProto, "gzip", zipped(t, big), 413, "more than 10000 bytes"},
	} {
		resp, out := post(t, r.http+tc.path, tc.contentType, tc.encoding, tc.body)
		var text string
		if resp.Header.Get("Content-Type") == typeProto {
			var st spb.Status
			if err := proto.Unmarshal(out, &st); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			text = st.GetMessage()
		} else {
			var st struct{ Message string }
			if err := json.Unmarshal(out, &st); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			text = st.Message
		}
		if resp.StatusCode != tc.code || !strings.Contains(text, tc.says) {
			t.Errorf("%s: %d %q, want %d %q", tc.name, resp.StatusCode, text, tc.code, tc.says)
		}
	}
	if resp, _ := post(t, r.http+"/v1/other", typeProto, "", nil); resp.StatusCode != 404 {
		t.Errorf("another path: %d", resp.StatusCode)
	}
	if a := r.Account(); a.Received != 0 || s.rows() != 0 {
		t.Errorf("account = %+v", a)
	}
}

// TestHTTPTellsSendersWhetherToTryAgain fills what may be pending, and then the spool.
func TestHTTPTellsSendersWhetherToTryAgain(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxPending = 10
	hold := make(chan struct{})
	s := &sink{tokens: map[string]int{}, fail: func(int) error { <-hold; return errAway }}
	cfg.SpoolBytes = 10 // nothing fits
	r := start(t, cfg, s)
	var g sync.WaitGroup
	g.Go(func() {
		resp, _ := post(t, r.http+"/v1/traces", typeProto, "", marshal(t, message(9, 0)))
		if resp.StatusCode != 507 {
			t.Errorf("spool is full: %d, want 507, which is final", resp.StatusCode)
		}
	})
	eventually(t, "pending", func() bool { return r.Account().Pending == 9 })
	resp, _ := post(t, r.http+"/v1/traces", typeProto, "", marshal(t, message(2, 0)))
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("too much pending: %d %v, want 503 and when to try again", resp.StatusCode, resp.Header)
	}
	close(hold)
	g.Wait()
	a := r.Account()
	balanced(t, a)
	if a.Refused != 2 || a.Dropped[SpoolFull] != 9 {
		t.Errorf("account = %+v", a)
	}
}

// TestLogsSpoolAndLeaveRoomForSpans fills half of the spool with log records: no more of
// them get in, and spans still do.
func TestLogsSpoolAndLeaveRoomForSpans(t *testing.T) {
	cfg := testConfig(t)
	cfg.SpoolBytes = 4000
	s := &sink{tokens: map[string]int{}, fail: away}
	r := start(t, cfg, s)
	logs := &collectorlogs.ExportLogsServiceRequest{ResourceLogs: []*logsv1.ResourceLogs{{ScopeLogs: []*logsv1.ScopeLogs{{LogRecords: make([]*logsv1.LogRecord, 3)}}}}}
	kept := 0
	for ; ; kept += 3 {
		if _, err := r.logs.Export(t.Context(), logs); err != nil {
			break
		}
	}
	if _, err := r.traces.Export(t.Context(), message(1, 0)); err != nil {
		t.Errorf("spans after the logs' half is full: %v", err)
	}
	a := r.Account()
	balanced(t, a)
	if f := a.Tables[otlp.Logs]; kept == 0 || f.Spooled != uint64(kept) || f.Dropped[SpoolFull] != 3 || a.SpoolBytes > 4000 {
		t.Errorf("%d kept; account of logs = %+v", kept, f)
	}
	r.stop()
	s.set(nil)
	r = start(t, cfg, s)
	eventually(t, "stored after a restart", func() bool { return r.Account().Tables[otlp.Logs].Stored == uint64(kept) })
	balanced(t, r.Account())
	if a := r.Account(); a.Tables[otlp.Logs].Recovered != uint64(kept) || a.Tables[otlp.Traces].Recovered != 1 {
		t.Errorf("account after a restart = %+v", a)
	}
}

// TestHTTPSendersProveThemselves: with HTTPTLS who has no certificate of the authority is
// not let in, and nothing is taken unencrypted.
func TestHTTPSendersProveThemselves(t *testing.T) {
	authority, dir, foreign := identitytest.NewAuthority(t), t.TempDir(), t.TempDir()
	identitytest.Put(t, dir, authority, identity.Observe, "")
	identitytest.Put(t, dir, authority, identity.Core, "")
	identitytest.Put(t, foreign, identitytest.NewAuthority(t), identity.Core, "")
	cfg := testConfig(t)
	cfg.HTTPTLS = identitytest.Load(t, dir, identity.Observe).Server(true)
	s := &sink{tokens: map[string]int{}}
	r := start(t, cfg, s)
	body := marshal(t, &collectorlogs.ExportLogsServiceRequest{ResourceLogs: []*logsv1.ResourceLogs{{ScopeLogs: []*logsv1.ScopeLogs{{
		LogRecords: []*logsv1.LogRecord{{TimeUnixNano: uint64(time.Now().UnixNano())}},
	}}}}})
	for name, c := range map[string]struct {
		scheme string
		trust  *tls.Config
		want   int // 0: not even an answer
	}{
		"a part of this installation": {"https", identitytest.Load(t, dir, identity.Core).Client(identity.Observe), http.StatusOK},
		"without a certificate":       {"https", identity.Trust(dir, identity.Observe), 0},
		"of another authority":        {"https", &tls.Config{InsecureSkipVerify: true, GetClientCertificate: identitytest.Load(t, foreign, identity.Core).Client(identity.Observe).GetClientCertificate}, 0},
		"unencrypted":                 {"http", nil, http.StatusBadRequest},
	} {
		before := s.rows()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.trust}}
		resp, err := client.Post(c.scheme+strings.TrimPrefix(r.http, "http")+"/v1/logs", typeProto, bytes.NewReader(body))
		client.CloseIdleConnections()
		got := 0
		if err == nil {
			got = resp.StatusCode
			resp.Body.Close()
		}
		if got != c.want || s.rows() > before != (c.want == http.StatusOK) {
			t.Errorf("%s: status %d, %v, %d rows more", name, got, err, s.rows()-before)
		}
	}
}

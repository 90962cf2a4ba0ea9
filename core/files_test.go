package core_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// form is a body with one file.
func form(field, name string, content []byte) (body *bytes.Buffer, kind string) {
	body = &bytes.Buffer{}
	w := multipart.NewWriter(body)
	part, _ := w.CreateFormFile(field, name) // into memory
	_, _ = part.Write(content)
	_ = w.Close()
	return body, w.FormDataContentType()
}

func (n *node) upload(bearer, field, name string, content []byte) (protocol.File, error) {
	n.t.Helper()
	var out protocol.File
	body, kind := form(field, name, content)
	return out, n.raw("POST", n.url+"/v1/files", bearer, body, http.Header{"Content-Type": {kind}}, &out)
}

// get is a request whose body is no JSON.
func (n *node) get(path, bearer string) (int, http.Header, string) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, n.url+path, nil)
	must(n.t, err)
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	w, err := http.DefaultTransport.RoundTrip(r)
	must(n.t, err)
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	must(n.t, err)
	return w.StatusCode, w.Header, string(b)
}

func somePNG() []byte {
	var b bytes.Buffer
	_ = png.Encode(&b, image.NewGray(image.Rect(0, 0, 600, 300)))
	return b.Bytes()
}

func TestFilesGoWithMessages(t *testing.T) {
	n := newWorld(t).start0()
	ann, bob, eve := n.person("ann"), n.person("bob"), n.person("eve")
	id := n.direct(ann, "bob")
	content := somePNG()
	f, err := n.upload(ann, "file", "cat.png", content)
	must(t, err)
	if want := (protocol.File{ID: f.ID, Name: "cat.png", Type: "image/png", Size: int64(len(content)), Width: 600, Height: 300, Thumbnail: true}); f != want {
		t.Errorf("got %+v", f)
	}
	path := "/v1/files/" + f.ID
	if status, _, _ := n.get(path, bob); status != http.StatusNotFound {
		t.Errorf("before it is sent: %d", status)
	}
	s, _ := n.connect(bob, newSeen())
	must(t, n.call("POST", "/v1/conversations/"+id+"/messages", ann, map[string]string{"client_id": "1", "file": f.ID}, nil))
	pushed := s.seen.until(t, id, func(m protocol.Message) bool { return m.ClientID == "1" })
	if pushed.File == nil || *pushed.File != f || pushed.Text != "" {
		t.Errorf("pushed %+v", pushed)
	}
	if h := n.history(bob, id); len(h) != 1 || h[0].File == nil || *h[0].File != f {
		t.Errorf("history %+v", h)
	}
	var linked struct {
		protocol.File
		URL string
	}
	must(t, n.call("GET", path, bob, nil, &linked))
	if status, head, body := n.get(linked.URL, ""); status != http.StatusOK || body != string(content) || head.Get("Content-Security-Policy") != "default-src 'none'; frame-ancestors 'none'; sandbox" {
		t.Errorf("download: %d, %v", status, head)
	}
	if status, head, _ := n.get(path+"/content", bob); status != http.StatusTemporaryRedirect || !strings.HasPrefix(head.Get("Location"), "/v1/blobs/"+f.ID) {
		t.Errorf("redirect: %d, %v", status, head)
	}
	if status, head, body := n.get(path+"/thumbnail", bob); status != http.StatusOK || head.Get("Content-Type") != "image/jpeg" || len(body) == 0 {
		t.Errorf("thumbnail: %d, %v", status, head)
	}
	for _, p := range []string{path, path + "/content", path + "/thumbnail"} {
		if status, _, _ := n.get(p, eve); status != http.StatusNotFound {
			t.Errorf("%s of other people: %d", p, status)
		}
		if status, _, _ := n.get(p, ""); status != http.StatusUnauthorized {
			t.Errorf("%s without a login: %d", p, status)
		}
	}
	must(t, n.call("DELETE", "/v1/conversations/"+id+"/messages/1", ann, nil, nil))
	s.seen.until(t, id, func(m protocol.Message) bool { return m.Event != nil && m.Event.Kind == protocol.EventRecalled })
	if status, _, _ := n.get(path, bob); status != http.StatusNotFound {
		t.Errorf("after the recall: %d", status)
	}
}

func TestBadUploadsAreOfTheClosedList(t *testing.T) {
	n := newWorld(t).start0()
	ann, bob := n.person("ann"), n.person("bob")
	id := n.direct(ann, "bob")
	whole, kind := form("file", "a.txt", []byte("hello"))
	theirs, err := n.upload(bob, "file", "b.txt", []byte("hello"))
	must(t, err)
	for _, c := range []struct {
		name, method, path, kind, body string
		code                           protocol.Code
		field                          string
	}{
		{"not a form", "POST", "/v1/files", "application/json", "{}", protocol.CodeInvalidArgument, "content-type"},
		{"no boundary", "POST", "/v1/files", "multipart/form-data", whole.String(), protocol.CodeInvalidArgument, "content-type"},
		{"another boundary", "POST", "/v1/files", "multipart/form-data; boundary=x", whole.String(), protocol.CodeInvalidArgument, "file"},
		{"cut off", "POST", "/v1/files", kind, whole.String()[:whole.Len()-20], protocol.CodeInvalidArgument, "file"},
		{"another field", "POST", "/v1/files", kind, strings.ReplaceAll(whole.String(), `name="file"`, `name="other"`), protocol.CodeInvalidArgument, "file"},
		{"empty file", "POST", "/v1/files", kind, strings.ReplaceAll(whole.String(), "hello", ""), protocol.CodeInvalidArgument, "file"},
		{"HTML", "POST", "/v1/files", kind, strings.ReplaceAll(whole.String(), "hello", "<html><body>x"), protocol.CodeInvalidArgument, "file"},
		{"a program", "POST", "/v1/files", kind, strings.ReplaceAll(whole.String(), "hello", "\x7fELF\x02\x01\x01"), protocol.CodeInvalidArgument, "file"},
		{"too large", "POST", "/v1/files", kind, strings.ReplaceAll(whole.String(), "hello", strings.Repeat("x", 1<<20+1)), protocol.CodeTooLarge, "file"},
		{"far too large", "POST", "/v1/files", kind, strings.ReplaceAll(whole.String(), "hello", strings.Repeat("x", 2<<20)), protocol.CodeTooLarge, "file"},
		{"no such file", "GET", "/v1/files/none", "", "", protocol.CodeNotFound, "id"},
		{"no id", "GET", "/v1/files/a.b", "", "", protocol.CodeInvalidArgument, "id"},
		{"another's file", "GET", "/v1/files/" + theirs.ID, "", "", protocol.CodeNotFound, "id"},
		{"no picture", "GET", "/v1/files/none/thumbnail", "", "", protocol.CodeNotFound, "id"},
		{"no signature", "GET", "/v1/blobs/" + theirs.ID, "", "", protocol.CodePermissionDenied, "signature"},
		{"send another's", "POST", "/v1/conversations/" + id + "/messages", "application/json", `{"client_id":"1","file":"` + theirs.ID + `"}`, protocol.CodeNotFound, "file"},
		{"send nothing", "POST", "/v1/conversations/" + id + "/messages", "application/json", `{"client_id":"1","file":""}`, protocol.CodeInvalidArgument, "text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := n.raw(c.method, n.url+c.path, ann, strings.NewReader(c.body), http.Header{"Content-Type": {c.kind}}, nil)
			var e *protocol.Error
			if !errors.As(err, &e) || e.Code != c.code || e.Field != c.field {
				t.Errorf("got %v, want %s of %q", err, c.code, c.field)
			}
		})
	}
}

// TestPartsOfAKilledProcessAreSwept by the processes that run, which leave fresh files alone.
func TestPartsOfAKilledProcessAreSwept(t *testing.T) {
	w := newWorld(t)
	cfg := w.config("baseline")
	cfg.File.Grace, cfg.File.Every = time.Minute, time.Second
	n := w.start(cfg)
	ann := n.person("ann")
	part := filepath.Join(cfg.FilePlace.Folder, "part", "x.1")
	must(t, os.WriteFile(part, []byte("x"), 0o600))
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(part, old, old))
	f, err := n.upload(ann, "file", "a.txt", []byte("hello"))
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(part); errors.Is(err, os.ErrNotExist) {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the part is still there")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if status, _, _ := n.get("/v1/files/"+f.ID, ann); status != http.StatusOK {
		t.Errorf("a fresh file was swept: %d", status)
	}
}

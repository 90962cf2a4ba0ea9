package api

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"time"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/file"
	"github.com/tracegate/tracegate/core/protocol"
)

// Files takes and hands out files; see core/file.
type Files interface {
	Upload(ctx context.Context, owner chat.User, name string, content io.Reader, atMost int64) (protocol.File, error)
	Link(ctx context.Context, userID, id string) (protocol.FileLink, error)
	Thumbnail(ctx context.Context, userID, id string) (content io.ReadCloser, mime string, err error)
	MaxSize() int64
}

// Blobs serves what signed links of core's own name.
type Blobs interface {
	Serve(w http.ResponseWriter, r *http.Request, key string) error
}

// fileRoutes are there where files are kept at all.
func (s *server) fileRoutes() map[string]handler {
	if s.deps.Files == nil {
		return nil
	}
	routes := map[string]handler{
		"POST /v1/files":               s.authed(s.postFile),
		"GET /v1/files/{id}":           s.authed(s.getFile),
		"GET /v1/files/{id}/content":   s.authed(s.getFileContent),
		"GET /v1/files/{id}/thumbnail": s.authed(s.getThumbnail),
	}
	if s.deps.Blobs != nil {
		routes["GET "+file.BlobPath+"{key}"] = func(w http.ResponseWriter, r *http.Request) error {
			return s.deps.Blobs.Serve(w, r, r.PathValue("key"))
		}
	}
	return routes
}

// formSize is what a form may have beside the file.
const formSize = 64 << 10

// postFile takes a form with one part, the file. It is passed on as it comes.
func (s *server) postFile(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	if err := s.limit(s.upload, "upload", id.User.ID); err != nil {
		return err
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return protocol.NewError(protocol.CodeInvalidArgument, "content-type", "content-type must be multipart/form-data with a boundary")
	}
	if r.ContentLength > s.deps.Files.MaxSize()+formSize {
		return protocol.NewError(protocol.CodeTooLarge, "file", "file has more than "+strconv.FormatInt(s.deps.Files.MaxSize(), 10)+" bytes")
	}
	body := &paced{r: http.MaxBytesReader(w, r.Body, s.deps.Files.MaxSize()+formSize), control: http.NewResponseController(w), start: time.Now()}
	part, err := multipart.NewReader(body, params["boundary"]).NextPart()
	if err != nil || part.FormName() != "file" {
		return protocol.NewError(protocol.CodeInvalidArgument, "file", "body must be a form whose first part is named file")
	}
	f, err := s.deps.Files.Upload(r.Context(), id.User, part.FileName(), part, max(r.ContentLength, 0))
	if err != nil {
		// A browser that is still sending would see a broken connection and not the reason.
		_, _ = io.Copy(io.Discard, body)
		return err
	}
	return write(w, http.StatusCreated, f)
}

// paced reads a body for as long as it comes at a bearable rate, instead of for the time
// that is enough for every other body.
type paced struct {
	r       io.Reader
	control *http.ResponseController
	start   time.Time
	read    int64
	next    time.Time
}

const (
	paceBytes = 16 << 10 // a second, after paceGrace
	paceGrace = 30 * time.Second
)

func (p *paced) Read(b []byte) (int, error) {
	if now := time.Now(); now.After(p.next) {
		p.next = now.Add(time.Second)
		deadline := p.start.Add(paceGrace + time.Duration(p.read/paceBytes)*time.Second)
		// Where the connection cannot do it (a test's recorder) the server's own limits hold.
		_ = errors.Join(p.control.SetReadDeadline(deadline), p.control.SetWriteDeadline(deadline.Add(time.Minute)))
	}
	n, err := p.r.Read(b)
	p.read += int64(n)
	return n, err
}

func (s *server) getFile(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	linked, err := s.deps.Files.Link(r.Context(), id.User.ID, r.PathValue("id"))
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, linked)
}

// getFileContent sends a browser to where the content is.
func (s *server) getFileContent(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	linked, err := s.deps.Files.Link(r.Context(), id.User.ID, r.PathValue("id"))
	if err != nil {
		return err
	}
	w.Header().Set("Location", linked.URL)
	w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

// maxThumbnail is more than a picture of its size can have.
const maxThumbnail = 4 << 20

func (s *server) getThumbnail(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	content, kind, err := s.deps.Files.Thumbnail(r.Context(), id.User.ID, r.PathValue("id"))
	if err != nil {
		return err
	}
	defer content.Close()
	b, err := io.ReadAll(io.LimitReader(content, maxThumbnail))
	if err != nil {
		return protocol.NewError(protocol.CodeUnavailable, "", "files cannot be reached at the moment: try again")
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "private, max-age=3600") // and so a recall is seen after an hour at the latest
	_, _ = w.Write(b)                               // a client that has gone is no error of ours
	return nil
}

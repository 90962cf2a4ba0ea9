// Package openapi describes the REST part of the API: a document, which is generated from
// the API's proto and a description of files (see the command beside it), and a page that
// shows it to people.
//
// The page is our own: viewers that could be embedded are a megabyte or more of somebody
// else's script, and none of them runs under the policy of the other pages (no inline
// style, trusted types).
package openapi

import (
	"embed"
	"io/fs"
	"net/http"
	"strconv"

	"github.com/tracegate/tracegate/mesh/webpage"
)

// Document is OpenAPI 2.0 in JSON.
//
//go:embed openapi.json
var Document []byte

//go:embed static
var static embed.FS

// Handler serves /openapi.json and, under /docs/, the page.
func Handler() http.Handler {
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // "static" is a valid path
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /openapi.json", serveDocument)
	mux.Handle("GET /docs/", http.StripPrefix("/docs", webpage.Must(webpage.New(files))))
	mux.Handle("GET /docs", http.RedirectHandler("/docs/", http.StatusPermanentRedirect))
	return mux
}

// serveDocument lets pages of other origins read it: it is no secret, and viewers do.
func serveDocument(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	webpage.Secure(h)
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(Document)))
	_, _ = w.Write(Document) // a client that has gone is no error of ours
}

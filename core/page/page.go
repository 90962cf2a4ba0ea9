// Package page is the chat page: static files that talk to core by the same REST
// and WebSocket protocol (core/protocol) as any other client. core serves it at "/".
//
// It has no server side of its own and no build step: plain modules, one style sheet.
// Its parts are in static/js: connection (one socket), link (keeps one, resumes,
// moves), timeline (order without gap or duplicate), outbox (sending with retries
// under one client id), app (joins them), view (draws, with people, account, search and
// reactions). The first four are the browser's counterpart of edge/client and promise the
// same.
//
// A framework was left: the page has one screen, and what is hard in it, the
// connection, no framework does.
package page

import (
	"embed"
	"io/fs"
	"net/http"

	"github.com/tracegate/tracegate/mesh/webpage"
)

//go:embed static
var static embed.FS

// Handler serves "/" and "/assets/...", and 404 for everything else.
func Handler() http.Handler {
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // "static" is a valid path
	}
	return webpage.Must(webpage.New(files))
}

package ctl

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/core/protocol"
)

// writeTimeout ends a watch whose client does not read.
const writeTimeout = 10 * time.Second

func (a *api) watchPlacement(w http.ResponseWriter, r *http.Request) {
	var last int64
	a.watch(w, r, a.watches, func(v View) []any {
		if v.Placement == nil || v.Placement.Version == last {
			return nil
		}
		last = v.Placement.Version
		return []any{v.Placement}
	})
}

func (a *api) watchDecisions(w http.ResponseWriter, r *http.Request) {
	var last uint64
	a.watch(w, r, a.watches, func(v View) []any {
		var out []any
		seen := last
		for _, e := range v.Decisions {
			if e.Rev > last {
				out = append(out, e.Decision)
				seen = max(seen, e.Rev)
			}
		}
		last = seen
		return out
	})
}

// watch writes a line of JSON for each value that news finds in a view, the
// present one first, and an empty line as a heartbeat. It has no queue: it reads
// the newest view whenever it has written the last. With the token it was opened by it
// ends, after a heartbeat at the latest.
func (a *api) watch(w http.ResponseWriter, r *http.Request, slots chan struct{}, news func(View) []any) {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	default:
		a.fail(w, r, &protocol.Error{Code: protocol.CodeRateLimited, Message: "too many watches are open", Temporary: true})
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	beat := time.NewTicker(ctlapi.Heartbeat)
	defer beat.Stop()
	for {
		view, changed := a.board.Read()
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
		enc := json.NewEncoder(w)
		for _, v := range news(view) {
			if enc.Encode(v) != nil {
				return
			}
		}
		if control.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-beat.C:
			if _, ok := a.holder(r, time.Now()); !ok {
				return // its token has expired, or was taken away
			}
			if _, err := w.Write([]byte("\n")); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

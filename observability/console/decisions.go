package console

import (
	"context"
	"net/http"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// decisionsFound bounds an answer, and decisionsBack is as far as decisions are kept.
const (
	decisionsFound = 200
	decisionsBack  = 366 * 24 * time.Hour
)

// getDecisions gives those of the past, by group and time; the live ones come with the
// events. They are the store's: the control plane remembers the newest only.
func (c *Console) getDecisions(w http.ResponseWriter, r *http.Request) {
	window, only, err := decisionQuery(r, c.deps.Now())
	if err != nil {
		refuse(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.cfg.Timeout)
	defer cancel()
	found, err := c.deps.Records.DecisionsIn(ctx, window, decisionsFound+1, only...)
	if err != nil {
		c.log.WarnContext(r.Context(), "decisions not read", "error", err)
		refuse(w, err)
		return
	}
	more := len(found) > decisionsFound
	answer(w, http.StatusOK, map[string]any{"decisions": Entries(found[:min(len(found), decisionsFound)]), "more": more})
}

func decisionQuery(r *http.Request, now time.Time) (w sli.Window, only []group.ID, err error) {
	w = sli.Window{From: now.Add(-decisionsBack), To: now}
	if text := r.FormValue("group"); text != "" {
		id := group.ID(text)
		if !id.Valid() {
			return w, nil, errGroup
		}
		only = append(only, id)
	}
	for name, at := range map[string]*time.Time{"from": &w.From, "to": &w.To} {
		text := r.FormValue(name)
		if text == "" {
			continue
		}
		if *at, err = time.Parse(time.RFC3339, text); err != nil || at.Year() < 1970 || at.Year() > 2200 {
			return w, nil, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: name, Message: name + " must be a time as 2006-01-02T15:04:05Z"}
		}
	}
	if !w.From.Before(w.To) {
		return w, nil, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "from", Message: "from must be before to"}
	}
	return w, only, nil
}

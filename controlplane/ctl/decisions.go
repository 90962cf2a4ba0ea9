package ctl

import (
	"net/http"
	"slices"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
)

// decisions are those that are remembered, newest first, and that a query wants.
func (a *api) decisions(w http.ResponseWriter, r *http.Request) {
	limit, err := limited(r, 100, MaxDecisions)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	wanted, err := wantedDecisions(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	v, _ := a.board.Read()
	out := []decide.Decision{}
	for _, e := range slices.Backward(v.Decisions) {
		if len(out) == limit {
			break
		}
		if wanted(e.Decision) {
			out = append(out, e.Decision)
		}
	}
	reply(w, out)
}

func wantedDecisions(r *http.Request) (func(decide.Decision) bool, error) {
	from, err := since(r)
	if err != nil {
		return nil, err
	}
	id, action := group.ID(r.URL.Query().Get("group")), decide.Action(r.URL.Query().Get("action"))
	switch {
	case id != "" && !id.Valid():
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "group", "group is not six lower-case hex digits")
	case action != "" && !action.Known():
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "action", "action is none of hold, prewarm, isolate, pin, release, shed, lift, rollback")
	}
	return func(d decide.Decision) bool {
		return !d.Time.Before(from) && (id == "" || d.Group == id) && (action == "" || d.Action == action)
	}, nil
}

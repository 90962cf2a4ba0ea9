package console

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
)

const (
	maxReason = 280
	maxFor    = 7 * 24 * time.Hour
)

var errGroup = &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "group", Message: "group must be six lower-case hex digits"}

// order passes an isolation or a release on, in the name of who is logged in.
func (c *Console) order(pass func(context.Context, group.ID, ctlapi.Order) (decide.Decision, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := group.ID(r.PathValue("id"))
		if !id.Valid() {
			refuse(w, errGroup)
			return
		}
		o, err := readOrder(w, r)
		if err != nil {
			refuse(w, err)
			return
		}
		c.carryOut(w, r, o, func(ctx context.Context) (decide.Decision, error) { return pass(ctx, id, o) })
	}
}

// confirm follows what a decision recommends, in the name of who is logged in.
func (c *Console) confirm(w http.ResponseWriter, r *http.Request) {
	o, err := readOrder(w, r)
	if err != nil {
		refuse(w, err)
		return
	}
	c.carryOut(w, r, o, func(ctx context.Context) (decide.Decision, error) {
		return c.deps.Operator.Confirm(ctx, r.PathValue("id"), o)
	})
}

func (c *Console) carryOut(w http.ResponseWriter, r *http.Request, o ctlapi.Order, pass func(context.Context) (decide.Decision, error)) {
	ctx, cancel := context.WithTimeout(r.Context(), c.cfg.Timeout)
	defer cancel()
	d, err := pass(ctx)
	if err != nil {
		c.log.WarnContext(r.Context(), "order not carried out", "path", r.URL.Path, "by", o.By, "error", err)
		var e *protocol.Error
		if !errors.As(err, &e) {
			err = &protocol.Error{Code: protocol.CodeUnavailable, Message: "the control plane does not answer; nothing was changed as far as is known", Temporary: true}
		}
		refuse(w, err)
		return
	}
	c.log.InfoContext(r.Context(), "order carried out", "action", d.Action, "group", d.Group, "by", o.By, "decision", d.ID)
	c.poke()
	answer(w, http.StatusOK, Entries([]decide.Decision{d})[0])
}

func readOrder(w http.ResponseWriter, r *http.Request) (ctlapi.Order, error) {
	var in struct {
		Reason   string           `json:"reason"`
		ForMS    int64            `json:"for_ms"`
		Requests uint32           `json:"requests"` // of a limit
		Identity *ctlapi.Identity `json:"identity"`
	}
	if err := decode(w, r, &in); err != nil {
		return ctlapi.Order{}, err
	}
	reason := strings.TrimSpace(in.Reason)
	switch {
	case reason == "" || utf8.RuneCountInString(reason) > maxReason:
		return ctlapi.Order{}, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "reason", Message: "reason must have 1 to 280 characters"}
	case in.ForMS < 0 || in.ForMS > maxFor.Milliseconds():
		return ctlapi.Order{}, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "for_ms", Message: "for_ms must be between 0 and a week"}
	}
	return ctlapi.Order{Reason: reason, By: sessionOf(r).name, ForMS: in.ForMS, Requests: in.Requests, Identity: in.Identity}, nil
}

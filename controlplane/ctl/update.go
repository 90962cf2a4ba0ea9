package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/settings"
	"github.com/tracegate/tracegate/mesh/webhook"
)

// update is a document that another system brings, such as a repository's hook: it is
// signed and has no token. A message counts once, around its time; who sends one again
// because the answer was lost is told that it was taken.
//
// It is a policy, or settings where its first lines say so ("# settings: core"). The
// signature is of the document, so what says whose it is must stand in there; a query
// could be another's.
func (a *api) update(w http.ResponseWriter, r *http.Request) {
	if a.updates == nil {
		a.fail(w, r, protocol.NewError(protocol.CodeNotFound, "", "signed updates are not switched on"))
		return
	}
	document, err := readDocument(w, r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	id, err := a.updates.Verify(r.Header, document, time.Now())
	switch {
	case errors.Is(err, webhook.ErrReplayed):
		a.fail(w, r, protocol.NewError(protocol.CodeAlreadyExists, "webhook-id", err.Error()))
	case err != nil:
		a.log.Warn("signed update refused", "error", err)
		a.unauthenticated.Inc()
		a.fail(w, r, protocol.NewError(protocol.CodeUnauthenticated, "", err.Error()))
	default:
		rec := newRecord(r, webhookName, webhookName, "policy")
		ch, err := a.policyChange(r, document, nil)
		if key := settings.Comment(document, "settings"); key != "" {
			rec.Action, rec.Target = "settings", clip(key, maxTarget)
			ch, err = a.settingsChange(r, key, document, nil)
			if _, ok := settings.ServiceOf(key); !ok && err == nil {
				err = protocol.NewError(protocol.CodeInvalidArgument, "settings", fmt.Sprintf("settings: %.100q is no key", key))
			}
		}
		a.carryOut(w, r, rec, answering(ch, ctlapi.Taken{ID: id, Digest: ctlapi.DigestOf(document)}), err)
	}
}

// webhookName is who brings signed updates, and what lets them.
const webhookName = "webhook"

// answering is a change with an answer of its own.
func answering(ch change, answer any) change {
	do := ch.do
	ch.do = func(ctx context.Context, by string) (any, string, error) {
		_, made, err := do(ctx, by)
		return answer, made, err
	}
	return ch
}

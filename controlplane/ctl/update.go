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
	by, reason := r.URL.Query().Get("by"), r.URL.Query().Get("reason")
	document, err := readDocument(w, r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	id, err := a.updates.Verify(r.Header, document, time.Now())
	switch {
	case errors.Is(err, webhook.ErrReplayed):
		err = protocol.NewError(protocol.CodeAlreadyExists, "webhook-id", err.Error())
	case err != nil:
		a.log.Warn("signed update refused", "error", err)
		err = protocol.NewError(protocol.CodeUnauthenticated, "", err.Error())
	default:
		if err = checkWho(by, reason); err == nil {
			err = a.take(r.Context(), document, "webhook:"+by, reason)
		}
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	reply(w, ctlapi.Taken{ID: id, Digest: ctlapi.DigestOf(document)})
}

func (a *api) take(ctx context.Context, document []byte, by, reason string) error {
	key := settings.Comment(document, "settings")
	if key == "" {
		return a.orders.PutPolicy(ctx, document, by, reason)
	}
	if _, ok := settings.ServiceOf(key); !ok {
		return protocol.NewError(protocol.CodeInvalidArgument, "settings", fmt.Sprintf("settings: %.100q is no key", key))
	}
	return a.orders.PutSettings(ctx, key, document, by, reason)
}

// Package ctl is the control plane's HTTP API for people and for the other parts:
// status, groups, placement, decisions, and an operator's orders. The wire types
// and a client are in ctlapi.
//
// It decides and keeps nothing: it shows a [Board] and hands orders to [Orders],
// both of which controlplane brings. Every path below /v1 wants a token, and what
// changes something the operator's. The listener is the caller's: on loopback, or of TLS.
package ctl

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
)

// Orders carries out what an operator asks for. Its errors are shown to the
// operator where they are [*protocol.Error], and hidden as internal where not.
type Orders interface {
	// Order returns when the order is durable and on its way to the edges.
	Order(ctx context.Context, action decide.Action, id group.ID, o ctlapi.Order) (decide.Decision, error)
	// Confirm follows the advice of a decision that only recommended.
	Confirm(ctx context.Context, decision string, o ctlapi.Order) (decide.Decision, error)
	// PutPolicy replaces the policy file with a valid document; by and reason are for
	// the history.
	PutPolicy(ctx context.Context, document []byte, by, reason string) error
	// PutSettings replaces the settings document of a key, or removes it where the document
	// is empty.
	PutSettings(ctx context.Context, key string, document []byte, by, reason string) error
}

// Revisions are the policies of the past.
type Revisions interface {
	// List is all that are kept, newest first.
	List() []ctlapi.Revision
	// Document is one of them; its error is fs.ErrNotExist where it is not kept.
	Document(number int) ([]byte, error)
}

const (
	maxBody      = 16 << 10
	maxWatches   = 64
	maxInstances = 1024
	maxText      = 500 // of a reason, bytes
)

// Tokens open the API. Who shows none of them sees nothing.
type Tokens struct {
	Operator secret.Text // may do everything
	Viewer   secret.Text // may look and ask, and change nothing; empty: there is none
	// Updates checks policies that come signed instead (POST /v1/updates); nil: none may.
	Updates *webhook.Verifier
}

// api serves.
type api struct {
	operator, viewer [sha256.Size]byte // of the whole header
	board            *Board
	orders           Orders
	history          Revisions
	log              *slog.Logger
	updates          *webhook.Verifier
	settings         Settings
	watches          chan struct{} // a slot for each open watch
	instances        chan struct{} // the same, of settings
}

// New returns the handler of the API with the process's health and metrics.
func New(tokens Tokens, board *Board, orders Orders, history Revisions, services Settings, metrics http.Handler, log *slog.Logger) http.Handler {
	a := &api{
		operator:  digest(tokens.Operator),
		viewer:    digest(tokens.Viewer),
		board:     board,
		orders:    orders,
		history:   history,
		log:       log,
		updates:   tokens.Updates,
		settings:  services,
		watches:   make(chan struct{}, maxWatches),
		instances: make(chan struct{}, maxInstances),
	}
	v1 := http.NewServeMux()
	v1.HandleFunc("GET "+ctlapi.PathStatus, a.status)
	v1.HandleFunc("GET "+ctlapi.PathPlacement, a.placement)
	v1.HandleFunc("GET "+ctlapi.PathPlacementWatch, a.watchPlacement)
	v1.HandleFunc("GET "+ctlapi.PathGroups, a.groups)
	v1.HandleFunc("POST "+ctlapi.PathGroups+"/{id}/isolate", a.changes(a.order(decide.Isolate)))
	v1.HandleFunc("POST "+ctlapi.PathGroups+"/{id}/pin", a.changes(a.order(decide.Pin)))
	v1.HandleFunc("POST "+ctlapi.PathGroups+"/{id}/release", a.changes(a.order(decide.Release)))
	v1.HandleFunc("POST "+ctlapi.PathGroups+"/{id}/shed", a.changes(a.order(decide.Shed)))
	v1.HandleFunc("GET "+ctlapi.PathDecisions, a.decisions)
	v1.HandleFunc("POST "+ctlapi.PathDecisions+"/{id}/confirm", a.changes(a.confirm))
	v1.HandleFunc("GET "+ctlapi.PathDecisionsWatch, a.watchDecisions)
	v1.HandleFunc("GET "+ctlapi.PathPolicy, a.policy)
	v1.HandleFunc("PUT "+ctlapi.PathPolicy, a.changes(a.putPolicy))
	v1.HandleFunc("POST "+ctlapi.PathPolicyCheck, a.checkPolicy)
	v1.HandleFunc("GET "+ctlapi.PathRevisions, a.revisions)
	v1.HandleFunc("GET "+ctlapi.PathRevisions+"/{number}", a.revision)
	a.settingsRoutes(v1)
	v1.HandleFunc("GET "+ctlapi.PathRoutes, a.routes)
	v1.HandleFunc("POST "+ctlapi.PathExplain, a.explain)
	v1.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, &protocol.Error{Code: protocol.CodeNotFound, Message: "no such path or method"})
	})

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", a.ready)
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("POST "+ctlapi.PathUpdates, a.update)
	mux.Handle("/v1/", a.authenticated(v1))
	return mux
}

// digest stands for a token, so that neither its content nor its length can be told
// from the time a comparison takes. An empty token is nobody's.
func digest(token secret.Text) [sha256.Size]byte {
	if token == "" {
		return sha256.Sum256([]byte(rand.Text()))
	}
	return sha256.Sum256([]byte("Bearer " + string(token)))
}

func is(r *http.Request, token [sha256.Size]byte) bool {
	sum := sha256.Sum256([]byte(r.Header.Get("Authorization")))
	return subtle.ConstantTimeCompare(sum[:], token[:]) == 1
}

func (a *api) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !is(r, a.operator) && !is(r, a.viewer) {
			a.fail(w, r, &protocol.Error{Code: protocol.CodeUnauthenticated, Message: "control token missing or wrong"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// changes lets operators only through.
func (a *api) changes(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !is(r, a.operator) {
			a.fail(w, r, &protocol.Error{Code: protocol.CodePermissionDenied, Message: "the token is a viewer's, and this changes something"})
			return
		}
		next(w, r)
	}
}

func (a *api) ready(w http.ResponseWriter, _ *http.Request) {
	if v, _ := a.board.Read(); !v.Ready {
		http.Error(w, "no configuration to serve yet", http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ready\n")
}

func (a *api) status(w http.ResponseWriter, _ *http.Request) {
	v, _ := a.board.Read()
	reply(w, v.Status)
}

func (a *api) groups(w http.ResponseWriter, _ *http.Request) {
	v, _ := a.board.Read()
	if v.Groups == nil {
		v.Groups = []ctlapi.Group{}
	}
	reply(w, v.Groups)
}

func (a *api) placement(w http.ResponseWriter, r *http.Request) {
	v, _ := a.board.Read()
	if v.Placement == nil {
		a.fail(w, r, &protocol.Error{Code: protocol.CodeUnavailable, Message: "no placement was published yet", Temporary: true})
		return
	}
	reply(w, v.Placement)
}

func (a *api) decisions(w http.ResponseWriter, r *http.Request) {
	limit := 100
	if s := r.URL.Query().Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > MaxDecisions {
			a.fail(w, r, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "limit", Message: "limit is not between 1 and " + strconv.Itoa(MaxDecisions)})
			return
		}
		limit = n
	}
	v, _ := a.board.Read()
	out := []decide.Decision{}
	for i := len(v.Decisions) - 1; i >= 0 && len(out) < limit; i-- {
		out = append(out, v.Decisions[i].Decision)
	}
	reply(w, out)
}

func (a *api) order(action decide.Action) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := group.ID(r.PathValue("id"))
		o, err := readOrder(w, r)
		if err == nil {
			err = checkGroup(o, id, action)
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		d, err := a.orders.Order(r.Context(), action, id, o)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		reply(w, d)
	}
}

func (a *api) confirm(w http.ResponseWriter, r *http.Request) {
	o, err := readOrder(w, r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	d, err := a.orders.Confirm(r.Context(), r.PathValue("id"), o)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	reply(w, d)
}

const maxRate = 1_000_000 // requests a second

func checkGroup(o ctlapi.Order, id group.ID, action decide.Action) error {
	invalid := func(field, message string) error {
		return protocol.NewError(protocol.CodeInvalidArgument, field, message)
	}
	if !id.Valid() {
		return invalid("group", "group is not six lower-case hex digits")
	}
	if action == decide.Shed && (o.Requests < 1 || o.Requests > maxRate) {
		return invalid("requests", "requests is not between 1 and "+strconv.Itoa(maxRate)+" a second")
	}
	if action == decide.Pin && o.Pool == "" {
		return invalid("pool", "pool is missing")
	}
	if action == decide.Pin && o.ForMS == 0 {
		return invalid("for_ms", "for_ms is missing: a pin has an end")
	}
	if o.Identity == nil {
		return nil
	}
	color, ok := group.ParseColor(o.Identity.Color)
	if !ok {
		return invalid("identity.color", "color is not eight lower-case hex digits")
	}
	if (group.Group{Color: color, Env: o.Identity.Env, Tenant: o.Identity.Tenant}).ID() != id {
		return invalid("identity", "identity is of another group")
	}
	return nil
}

func readOrder(w http.ResponseWriter, r *http.Request) (ctlapi.Order, error) {
	invalid := func(field, message string) (ctlapi.Order, error) {
		return ctlapi.Order{}, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: field, Message: message}
	}
	var o ctlapi.Order
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		return invalid("", "body is not the JSON of an order: "+err.Error())
	}
	switch {
	case strings.TrimSpace(o.Reason) == "" || len(o.Reason) > maxText:
		return invalid("reason", "reason is not 1 to "+strconv.Itoa(maxText)+" bytes")
	case strings.TrimSpace(o.By) == "" || len(o.By) > 64:
		return invalid("by", "by is not 1 to 64 bytes")
	case o.ForMS < 0 || time.Duration(o.ForMS) > 7*24*time.Hour/time.Millisecond:
		return invalid("for_ms", "for_ms is not between 0 and a week")
	}
	return o, nil
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// A client that went away is its own business.
	_ = json.NewEncoder(w).Encode(v)
}

func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	var shown *protocol.Error
	if !errors.As(err, &shown) {
		a.log.Error("control API", "path", r.URL.Path, "error", err)
		shown = &protocol.Error{Code: protocol.CodeInternal, Message: "internal error", Temporary: true}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(shown.Code.Status())
	_ = json.NewEncoder(w).Encode(shown)
}

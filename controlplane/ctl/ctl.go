// Package ctl is the control plane's HTTP API for people and for the other parts:
// status, groups, placement, decisions, and an operator's orders. The wire types
// and a client are in ctlapi.
//
// It decides and keeps nothing: it shows a [Board], hands orders to [Orders] and notes
// in [Audit] who asked for what; controlplane brings all three. Every path below /v1 wants
// a token, and what changes something an operator's. The listener is the caller's: on
// loopback, or of TLS.
package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/access"
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
	maxBy        = 64  // of what who asks says of themselves
)

// Tokens open the API. Who shows none of them sees nothing.
type Tokens struct {
	Operator secret.Text // may do everything; its name is "operator"
	Viewer   secret.Text // may look and ask, and change nothing; empty: there is none
	// Named are more of them, as they are now; nil: there are none.
	Named func() access.Set
	// Updates checks policies that come signed instead (POST /v1/updates); nil: none may.
	Updates *webhook.Verifier
}

// Deps is what the API shows and asks.
type Deps struct {
	Board    *Board
	Orders   Orders
	Drains   Drains
	History  Revisions
	Settings Settings
	Audit    Audit
	Metrics  http.Handler
	// Unauthenticated counts requests without a token that counts, and updates without a
	// signature that does: they leave no other trace, so nobody can fill a disk with them.
	Unauthenticated prometheus.Counter
}

// api serves.
type api struct {
	generated       access.Set
	named           func() access.Set
	board           *Board
	orders          Orders
	history         Revisions
	audit           Audit
	unauthenticated prometheus.Counter
	log             *slog.Logger
	updates         *webhook.Verifier
	settings        Settings
	watches         chan struct{} // a slot for each open watch
	instances       chan struct{} // the same, of settings
}

// New returns the handler of the API with the process's health and metrics.
func New(tokens Tokens, deps Deps, log *slog.Logger) http.Handler {
	a := &api{
		generated:       generated(tokens),
		named:           tokens.Named,
		board:           deps.Board,
		orders:          deps.Orders,
		history:         deps.History,
		audit:           deps.Audit,
		unauthenticated: deps.Unauthenticated,
		log:             log,
		updates:         tokens.Updates,
		settings:        deps.Settings,
		watches:         make(chan struct{}, maxWatches),
		instances:       make(chan struct{}, maxInstances),
	}
	v1 := http.NewServeMux()
	v1.HandleFunc("GET "+ctlapi.PathStatus, a.status)
	v1.HandleFunc("GET "+ctlapi.PathPlacement, a.placement)
	v1.HandleFunc("GET "+ctlapi.PathPlacementWatch, a.watchPlacement)
	v1.HandleFunc("GET "+ctlapi.PathGroups, a.groups)
	v1.HandleFunc("POST "+ctlapi.PathGroups+"/{id}/isolate", a.changes(string(decide.Isolate), a.order(decide.Isolate)))
	v1.HandleFunc("POST "+ctlapi.PathGroups+"/{id}/pin", a.changes(string(decide.Pin), a.order(decide.Pin)))
	v1.HandleFunc("POST "+ctlapi.PathGroups+"/{id}/release", a.changes(string(decide.Release), a.order(decide.Release)))
	v1.HandleFunc("POST "+ctlapi.PathGroups+"/{id}/shed", a.changes(string(decide.Shed), a.order(decide.Shed)))
	v1.HandleFunc("POST "+ctlapi.PathGroups+"/{id}/lift", a.changes(string(decide.Lift), a.order(decide.Lift)))
	v1.HandleFunc("GET "+ctlapi.PathDecisions, a.decisions)
	v1.HandleFunc("POST "+ctlapi.PathDecisions+"/{id}/confirm", a.changes("confirm", a.confirm))
	v1.HandleFunc("GET "+ctlapi.PathDecisionsWatch, a.watchDecisions)
	v1.HandleFunc("GET "+ctlapi.PathPolicy, a.policy)
	v1.HandleFunc("PUT "+ctlapi.PathPolicy, a.changes("policy", a.putPolicy))
	v1.HandleFunc("POST "+ctlapi.PathPolicyCheck, a.checkPolicy)
	v1.HandleFunc("GET "+ctlapi.PathRevisions, a.revisions)
	v1.HandleFunc("GET "+ctlapi.PathRevisions+"/{number}", a.revision)
	a.settingsRoutes(v1)
	v1.HandleFunc("GET "+ctlapi.PathRoutes, a.routes)
	v1.HandleFunc("POST "+ctlapi.PathExplain, a.explain)
	v1.HandleFunc("GET "+ctlapi.PathAudit, a.showAudit)
	v1.HandleFunc("GET "+ctlapi.PathEndpoints, a.endpoints)
	v1.HandleFunc("POST "+ctlapi.PathDrain, a.changes("drain", a.drain(deps.Drains.Drain)))
	v1.HandleFunc("POST "+ctlapi.PathUndrain, a.changes("undrain", a.drain(deps.Drains.Undrain)))
	v1.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, &protocol.Error{Code: protocol.CodeNotFound, Message: "no such path or method"})
	})

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", a.ready)
	mux.Handle("GET /metrics", deps.Metrics)
	mux.HandleFunc("POST "+ctlapi.PathUpdates, a.update)
	mux.Handle("/v1/", a.authenticated(v1))
	return mux
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

func (a *api) order(action decide.Action) reader {
	return func(w http.ResponseWriter, r *http.Request) (change, error) {
		id := group.ID(r.PathValue("id"))
		o, err := readOrder(w, r)
		if err == nil {
			err = checkGroup(o, id, action)
		}
		return change{by: o.By, reason: o.Reason, do: func(ctx context.Context, by string) (any, string, error) {
			o.By = by
			return decided(a.orders.Order(ctx, action, id, o))
		}}, err
	}
}

func (a *api) confirm(w http.ResponseWriter, r *http.Request) (change, error) {
	o, err := readOrder(w, r)
	return change{by: o.By, reason: o.Reason, do: func(ctx context.Context, by string) (any, string, error) {
		o.By = by
		return decided(a.orders.Confirm(ctx, r.PathValue("id"), o))
	}}, err
}

func decided(d decide.Decision, err error) (answer any, made string, _ error) { return d, d.ID, err }

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
	var o ctlapi.Order
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		return ctlapi.Order{}, protocol.NewError(protocol.CodeInvalidArgument, "", "body is not the JSON of an order: "+err.Error())
	}
	return o, checkOrder(o.Reason, o.By, o.ForMS)
}

func checkOrder(reason, by string, forMS int64) error {
	switch {
	case strings.TrimSpace(reason) == "" || len(reason) > maxText:
		return protocol.NewError(protocol.CodeInvalidArgument, "reason", "reason is not 1 to "+strconv.Itoa(maxText)+" bytes")
	case len(by) > maxBy:
		return protocol.NewError(protocol.CodeInvalidArgument, "by", "by is longer than "+strconv.Itoa(maxBy)+" bytes")
	case forMS < 0 || time.Duration(forMS) > 7*24*time.Hour/time.Millisecond:
		return protocol.NewError(protocol.CodeInvalidArgument, "for_ms", "for_ms is not between 0 and a week")
	}
	return nil
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

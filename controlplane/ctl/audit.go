package ctl

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/tracegate/tracegate/controlplane/access"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/core/protocol"
)

// Audit is the record of requests that change something.
type Audit interface {
	// Keep returns when a record is durable; a later one of the same id takes its place.
	Keep(r ctlapi.AuditRecord) error
	// KeepRefused is Keep for a request that is refused; of many it may leave some out.
	KeepRefused(r ctlapi.AuditRecord) error
	// Find returns records newest first.
	Find(q ctlapi.AuditQuery) []ctlapi.AuditRecord
}

// generated are the two tokens of the first start.
func generated(t Tokens) access.Set {
	out := []access.Token{access.Of(string(access.Operator), access.Operator, string(t.Operator), time.Time{})}
	if t.Viewer != "" {
		out = append(out, access.Of(string(access.Viewer), access.Viewer, string(t.Viewer), time.Time{}))
	}
	return access.NewSet(out...)
}

// holder is whose token a request shows.
func (a *api) holder(r *http.Request, now time.Time) (access.Token, bool) {
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return access.Token{}, false
	}
	if t, ok := a.generated.Find(shown, now); ok || a.named == nil {
		return t, ok
	}
	return a.named().Find(shown, now)
}

type holderKey struct{}

// holderOf is who an authenticated request is of.
func holderOf(r *http.Request) access.Token {
	t, _ := r.Context().Value(holderKey{}).(access.Token)
	return t
}

func (a *api) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, ok := a.holder(r, time.Now())
		if !ok {
			a.unauthenticated.Inc()
			a.fail(w, r, &protocol.Error{Code: protocol.CodeUnauthenticated, Message: "control token missing, wrong or expired"})
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), holderKey{}, t)))
	})
}

var errViewer = &protocol.Error{Code: protocol.CodePermissionDenied, Message: "the token is a viewer's, and this changes something"}

// operators lets operators only through, without a record: it is for parts.
func (a *api) operators(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if holderOf(r).Role != access.Operator {
			a.fail(w, r, errViewer)
			return
		}
		next(w, r)
	}
}

// change is what a request asks for.
type change struct {
	target, by, reason, digest string // no target: the one of the path
	// do carries it out in the name of by. No answer: status 204. made is the id of the
	// decision that came of it.
	do func(ctx context.Context, by string) (answer any, made string, err error)
}

// reader reads what a request asks for, and checks it. With an error it returns as much as
// it could read.
type reader func(w http.ResponseWriter, r *http.Request) (change, error)

// changes lets operators only through, and leaves a record of who asked for what.
func (a *api) changes(action string, read reader) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		t := holderOf(r)
		rec := newRecord(r, t.Name, string(t.Role), action)
		if t.Role != access.Operator {
			a.refuse(w, r, rec, errViewer)
			return
		}
		ch, err := read(w, r)
		a.carryOut(w, r, rec, ch, err)
	}
}

// carryOut does what was read, if it could be read and the record of it is durable.
func (a *api) carryOut(w http.ResponseWriter, r *http.Request, rec ctlapi.AuditRecord, ch change, err error) {
	rec.By, rec.Reason, rec.Digest = clip(ch.by, maxBy), clip(ch.reason, maxText), ch.digest
	rec.Target = cmp.Or(clip(ch.target, maxTarget), rec.Target)
	if err != nil {
		a.refuse(w, r, rec, err)
		return
	}
	if err := a.audit.Keep(rec); err != nil {
		a.log.Error("a request cannot be recorded, so it is not carried out", "path", r.URL.Path, "who", rec.Who, "error", err)
		a.fail(w, r, &protocol.Error{Code: protocol.CodeUnavailable, Message: "the request could not be recorded on disk, so it was not carried out", Temporary: true})
		return
	}
	answer, made, err := ch.do(r.Context(), named(rec.Who, ch.by))
	rec.Outcome = outcome(err)
	if err == nil {
		rec.Made = made
	}
	if err := a.audit.Keep(rec); err != nil { // it is done; the record says that nobody knows
		a.log.Error("the outcome of a request cannot be recorded", "path", r.URL.Path, "who", rec.Who, "error", err)
	}
	switch {
	case err != nil:
		a.fail(w, r, err)
	case answer == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		reply(w, answer)
	}
}

func (a *api) refuse(w http.ResponseWriter, r *http.Request, rec ctlapi.AuditRecord, err error) {
	rec.Outcome = outcome(err)
	if err := a.audit.KeepRefused(rec); err != nil {
		a.log.Error("a refused request cannot be recorded", "path", r.URL.Path, "who", rec.Who, "error", err)
	}
	a.fail(w, r, err)
}

func outcome(err error) string {
	if err == nil {
		return ctlapi.OutcomeDone
	}
	if shown := new(protocol.Error); errors.As(err, &shown) {
		return string(shown.Code)
	}
	return string(protocol.CodeInternal)
}

// named is who a decision or a revision is by: the token's name, and what who uses it says
// of themselves.
func named(who, by string) string {
	if by == "" || by == who {
		return who
	}
	return who + ":" + by
}

const maxTarget = 256

func newRecord(r *http.Request, who, role, action string) ctlapi.AuditRecord {
	return ctlapi.AuditRecord{
		ID: uuid.Must(uuid.NewV7()).String(), Time: time.Now(), Who: who, Role: role, Remote: r.RemoteAddr,
		Method: r.Method, Path: clip(r.URL.Path, maxTarget), Action: action,
		Target: clip(cmp.Or(r.PathValue("id"), r.URL.Query().Get("key")), maxTarget),
	}
}

// clip cuts what a client may have made too long.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

func (a *api) showAudit(w http.ResponseWriter, r *http.Request) {
	q, err := ctlapi.AuditQuery{Who: r.URL.Query().Get("who"), Limit: 100}, error(nil)
	if q.Since, err = since(r); err == nil {
		q.Limit, err = limited(r, q.Limit, ctlapi.MaxAudit)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	reply(w, a.audit.Find(q))
}

// since is from when on a request asks for something; zero: from the first.
func since(r *http.Request) (time.Time, error) {
	s := r.URL.Query().Get("since")
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, protocol.NewError(protocol.CodeInvalidArgument, "since", "since is no time as in 2006-01-02T15:04:05Z")
	}
	return t, nil
}

// limited is how much a request asks for.
func limited(r *http.Request, otherwise, most int) (int, error) {
	s := r.URL.Query().Get("limit")
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return 0, protocol.NewError(protocol.CodeInvalidArgument, "limit", "limit is not between 1 and "+strconv.Itoa(most))
	}
	return n, nil
}

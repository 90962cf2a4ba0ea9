package ctl

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/explain"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/core/protocol"
)

// policy is the document in force.
func (a *api) policy(w http.ResponseWriter, r *http.Request) {
	b, err := a.basis()
	if err != nil {
		a.fail(w, r, err)
		return
	}
	out := ctlapi.Document{Document: string(b.Document)}
	all, digest := a.history.List(), ctlapi.DigestOf(b.Document)
	if i := slices.IndexFunc(all, func(rev ctlapi.Revision) bool { return rev.Digest == digest }); i >= 0 {
		out.Revision = &all[i]
	}
	reply(w, out)
}

func (a *api) putPolicy(w http.ResponseWriter, r *http.Request) (change, error) {
	document, err := readDocument(w, r)
	return a.policyChange(r, document, err)
}

// policyChange puts a document that was read, or could not be.
func (a *api) policyChange(r *http.Request, document []byte, err error) (change, error) {
	by, reason := r.URL.Query().Get("by"), r.URL.Query().Get("reason")
	return change{by: by, reason: reason, digest: digest(document, err), do: func(ctx context.Context, by string) (any, string, error) {
		return nil, "", a.orders.PutPolicy(ctx, document, by, reason)
	}}, cmp.Or(err, checkWho(by, reason))
}

func digest(document []byte, err error) string {
	if err != nil {
		return ""
	}
	return ctlapi.DigestOf(document)
}

func readDocument(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	document, err := io.ReadAll(http.MaxBytesReader(w, r.Body, policy.MaxSize))
	if err != nil {
		return nil, protocol.NewError(protocol.CodeTooLarge, "", fmt.Sprintf("policy has more than %d bytes", policy.MaxSize))
	}
	return document, nil
}

func (a *api) revisions(w http.ResponseWriter, _ *http.Request) {
	reply(w, append([]ctlapi.Revision{}, a.history.List()...))
}

func (a *api) revision(w http.ResponseWriter, r *http.Request) {
	number, _ := strconv.Atoi(r.PathValue("number"))
	a.replyRevision(w, r, a.history, number)
}

// checkPolicy says what would become of a document.
func (a *api) checkPolicy(w http.ResponseWriter, r *http.Request) {
	document, err := readDocument(w, r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	b, err := a.basis()
	if err != nil {
		a.fail(w, r, err)
		return
	}
	out := ctlapi.Check{Problems: []policy.Problem{}, Changes: []ctlapi.Change{}}
	p, err := b.with(document, time.Now())
	var snapshot *xds.Snapshot
	if err == nil {
		snapshot, err = xds.Build(p)
	}
	var invalid *policy.Error
	switch {
	case errors.As(err, &invalid):
		out.Problems = invalid.Problems
	case err != nil:
		out.Problems = append(out.Problems, policy.Problem{Message: err.Error()})
	default:
		out.Changes = append(out.Changes, changes(b.Snapshot, snapshot)...)
	}
	reply(w, out)
}

func (a *api) explain(w http.ResponseWriter, r *http.Request) {
	var q ctlapi.Question
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 2*policy.MaxSize)) // a document's lines are escaped in JSON
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		a.fail(w, r, protocol.NewError(protocol.CodeInvalidArgument, "", "body is not the JSON of a question: "+err.Error()))
		return
	}
	b, err := a.basis()
	if err != nil {
		a.fail(w, r, err)
		return
	}
	p := b.Plan
	if q.Document != "" {
		if p, err = b.with([]byte(q.Document), time.Now()); err != nil {
			a.fail(w, r, protocol.NewError(protocol.CodeInvalidArgument, "document", err.Error()))
			return
		}
	}
	out, err := explain.Explain(p, q.Request)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	reply(w, out)
}

func (a *api) basis() (*Basis, error) {
	v, _ := a.board.Read()
	if v.Basis == nil {
		return nil, protocol.NewError(protocol.CodeUnavailable, "", "no valid policy and endpoints yet")
	}
	return v.Basis, nil
}

// with is the plan that another policy would make of the same endpoints and moves.
func (b *Basis) with(document []byte, now time.Time) (plan.Plan, error) {
	p, err := policy.Parse(document)
	if err != nil {
		return plan.Plan{}, err
	}
	p, _ = p.At(now)
	out, err := plan.Build(p, b.Endpoints, b.Plan.Groups(), b.Plan.Edge)
	out.Retired = b.Plan.Retired
	return out, err
}

// changes compares what edges have with what they would have.
func changes(old, next *xds.Snapshot) []ctlapi.Change {
	var out []ctlapi.Change
	for i, names := range old.Changes(next) {
		t := xds.Type(i)
		for _, name := range names {
			what := "changed"
			if _, had := old.Find(t, name); !had {
				what = "added"
			} else if _, has := next.Find(t, name); !has {
				what = "removed"
			}
			out = append(out, ctlapi.Change{Type: t.String(), Name: name, What: what})
		}
	}
	slices.SortFunc(out, func(a, b ctlapi.Change) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name))
	})
	return out
}

package console

import (
	"context"
	"net/http"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core/protocol"
)

// Policies is what the control plane says of policies: *ctlapi.Client. The console asks
// what another one would change and puts none into force: that goes by the file or ctl,
// where the document is.
type Policies interface {
	Policy(ctx context.Context) (ctlapi.Document, error)
	CheckPolicy(ctx context.Context, document []byte) (ctlapi.Check, error)
	Revisions(ctx context.Context) ([]ctlapi.Revision, error)
	Revision(ctx context.Context, number int) (ctlapi.Document, error)
}

// What is shown of a difference at most; a person reads no more.
const (
	maxDiffLines = 1000
	maxChanges   = 200
)

// Difference is what would become of another policy.
type Difference struct {
	Problems []string             `json:"problems"` // why it would be refused
	Changes  Shown[ctlapi.Change] `json:"changes"`  // of what edges have
	Lines    Shown[string]        `json:"lines"`    // of the document, as diff -u prints them; none: it is the same
}

func (c *Console) getPolicy(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), c.cfg.Timeout)
	defer cancel()
	now, err := c.deps.Policies.Policy(ctx)
	if err != nil {
		c.notSaid(w, r, err)
		return
	}
	revisions, err := c.deps.Policies.Revisions(ctx)
	if err != nil {
		c.notSaid(w, r, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"document": now.Document, "revision": now.Revision, "revisions": first(revisions, maxDecisions)})
}

// postDifference compares a document, or a revision, with what is in force.
func (c *Console) postDifference(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Document string `json:"document"`
		Revision int    `json:"revision"`
	}
	if err := decodeUpTo(w, r, &in, 2*policy.MaxSize); err != nil { // a document's lines are escaped in JSON
		refuse(w, err)
		return
	}
	if (strings.TrimSpace(in.Document) == "") == (in.Revision == 0) {
		refuse(w, &protocol.Error{Code: protocol.CodeInvalidArgument, Field: "document", Message: "give a document or the number of a revision"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.cfg.Timeout)
	defer cancel()
	d, err := c.difference(ctx, in.Document, in.Revision)
	if err != nil {
		c.notSaid(w, r, err)
		return
	}
	answer(w, http.StatusOK, d)
}

func (c *Console) difference(ctx context.Context, document string, revision int) (Difference, error) {
	now, err := c.deps.Policies.Policy(ctx)
	if err != nil {
		return Difference{}, err
	}
	if revision != 0 {
		d, err := c.deps.Policies.Revision(ctx, revision)
		if err != nil {
			return Difference{}, err
		}
		document = d.Document
	}
	check, err := c.deps.Policies.CheckPolicy(ctx, []byte(document))
	if err != nil {
		return Difference{}, err
	}
	out := Difference{Problems: []string{}, Changes: first(check.Changes, maxChanges), Lines: Shown[string]{Rows: []string{}}}
	for _, p := range check.Problems {
		out.Problems = append(out.Problems, p.String())
	}
	if text := string(diff.Diff("in force", []byte(now.Document), "proposed", []byte(document))); text != "" {
		out.Lines = first(strings.Split(strings.TrimSuffix(text, "\n"), "\n"), maxDiffLines)
	}
	return out, nil
}

// notSaid passes on what the control plane answers, and says so where it does not.
func (c *Console) notSaid(w http.ResponseWriter, r *http.Request, err error) {
	c.log.WarnContext(r.Context(), "policy not read", "error", err)
	refuse(w, err)
}

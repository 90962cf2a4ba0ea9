package ctlapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tracegate/tracegate/controlplane/explain"
	"github.com/tracegate/tracegate/controlplane/policy"
)

// Paths about the policy.
const (
	PathPolicy      = "/v1/policy"
	PathPolicyCheck = "/v1/policy/check"
	PathRevisions   = "/v1/policy/revisions"
	PathRoutes      = "/v1/routes"
	PathExplain     = "/v1/explain"
	PathUpdates     = "/v1/updates" // signed, see mesh/webhook.Verifier
)

// Revision is a policy that was read.
type Revision struct {
	Number int       `json:"number"`
	Time   time.Time `json:"time"`
	By     string    `json:"by"` // "file", or "operator:" and a name
	Reason string    `json:"reason,omitempty"`
	Digest string    `json:"digest"` // start of the document's SHA-256
	Size   int       `json:"size"`   // of the document, bytes
	State  string    `json:"state"`  // one of the Revision constants
	Why    string    `json:"why,omitempty"`
	Since  time.Time `json:"since,omitzero"`    // when it was in force
	BackTo int       `json:"back_to,omitempty"` // the revision that is in force in its place, where it was taken back
}

// States of a revision.
const (
	RevisionPending    = "pending"     // edges have not acknowledged it yet
	RevisionTrial      = "trial"       // one edge has it, see Status.Trial
	RevisionInForce    = "in_force"    // every edge has
	RevisionPartly     = "partly"      // every edge has, but for what Why says
	RevisionRefused    = "refused"     // an edge has, for the reason in Why
	RevisionRolledBack = "rolled_back" // it made a group bad, or the edge that had it first, and was taken back; Why has the figures
	RevisionSuperseded = "superseded"  // another one came
	RevisionInvalid    = "invalid"     // it could not be used at all, for the reason in Why
)

// DigestOf is the [Revision.Digest] of a document.
func DigestOf(document []byte) string {
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:6])
}

// Taken says that a signed update was valid and is kept; what becomes of it is said by
// the revision of its digest.
type Taken struct {
	ID     string `json:"id"` // of the message
	Digest string `json:"digest"`
}

// Document is a policy as it was written.
type Document struct {
	Revision *Revision `json:"revision,omitempty"` // nil: none is kept of it
	Document string    `json:"document"`
}

// Check is what would become of a document.
type Check struct {
	Problems []policy.Problem `json:"problems"` // why it would be refused; empty: it would not
	Changes  []Change         `json:"changes"`  // of what edges have, by type and name
}

// Change is one resource that edges would be given or lose.
type Change struct {
	Type string `json:"type"` // lds, rds, cds, eds, ecds
	Name string `json:"name"`
	What string `json:"what"` // "added", "changed" or "removed"
}

// Route is one match of a rule, or a route, as edges were last given it; the first that
// holds takes a request.
type Route struct {
	Service    string    `json:"service"` // under which it stands
	Name       string    `json:"name"`
	Rule       bool      `json:"rule"`                 // a rule, else a route
	Hosts      []string  `json:"hosts,omitempty"`      // any of them; empty: every host
	Methods    []string  `json:"methods,omitempty"`    // any of them; empty: every method
	Path       string    `json:"path,omitempty"`       // /a, /a/* of a prefix, or ~ and a regex; empty: every path
	Conditions []string  `json:"conditions,omitempty"` // all of them, in words
	To         string    `json:"to,omitempty"`         // the service that serves, where it is another
	By         string    `json:"by"`                   // who chooses the pool: one of the By constants
	Pools      []Weight  `json:"pools,omitempty"`      // where it is not the group
	Answer     string    `json:"answer,omitempty"`     // of the edge itself
	Until      time.Time `json:"until,omitzero"`       // of a pinned pool
}

// Who chooses the pool of a request.
const (
	ByGroup = "group" // group and cohort
	ByRule  = "rule"  // pinned: group and cohort do not count
	ByUser  = "user"  // a canary, for those that baseline would serve
	ByEdge  = "edge"  // nobody: the edge answers by itself
)

// Weight is a pool's share of users.
type Weight struct {
	Pool    string  `json:"pool"`
	Percent float64 `json:"percent"`
}

// Question asks what becomes of a request, under the policy in force or, where
// Document is not empty, under that one.
type Question struct {
	Request  explain.Request `json:"request"`
	Document string          `json:"document,omitempty"`
}

// Policy is the document in force.
func (c *Client) Policy(ctx context.Context) (Document, error) {
	var out Document
	return out, c.call(ctx, http.MethodGet, PathPolicy, nil, &out)
}

// PutPolicy replaces the policy file, if the whole document is valid. It returns when
// that is durable, before edges have it: [Client.Revisions] says when they do.
func (c *Client) PutPolicy(ctx context.Context, document []byte, by, reason string) error {
	q := url.Values{"by": {by}, "reason": {reason}}
	return c.call(ctx, http.MethodPut, PathPolicy+"?"+q.Encode(), document, nil)
}

// CheckPolicy says what would become of a document, and changes nothing.
func (c *Client) CheckPolicy(ctx context.Context, document []byte) (Check, error) {
	var out Check
	return out, c.call(ctx, http.MethodPost, PathPolicyCheck, document, &out)
}

// Revisions are those that are kept, newest first.
func (c *Client) Revisions(ctx context.Context) ([]Revision, error) {
	var out []Revision
	return out, c.call(ctx, http.MethodGet, PathRevisions, nil, &out)
}

// Revision is one of them with its document.
func (c *Client) Revision(ctx context.Context, number int) (Document, error) {
	var out Document
	return out, c.call(ctx, http.MethodGet, PathRevisions+"/"+strconv.Itoa(number), nil, &out)
}

// Routes are what edges were last given, in the order they try them.
func (c *Client) Routes(ctx context.Context) ([]Route, error) {
	var out []Route
	return out, c.call(ctx, http.MethodGet, PathRoutes, nil, &out)
}

// Explain says what edges do with a request.
func (c *Client) Explain(ctx context.Context, q Question) (explain.Outcome, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return explain.Outcome{}, fmt.Errorf("encode question: %w", err)
	}
	var out explain.Outcome
	return out, c.call(ctx, http.MethodPost, PathExplain, body, &out)
}
